"""Attacks on merges in swarms of real processes, with each codec: the run goes on, each attacker is named.

`./scripts/test -m long tests/adversarial/test_merge_attacks.py` runs each attack by itself with each codec,
against an honest run of the codec. Without it several run in one swarm, one of the three contributions of
each stage each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from iota.spec import OuterCodec
from tests.support.merge_attacks import ATTACKS, KEPT, attacked, fall

SHORT: Final = {
    OuterCodec.NONE: {
        "miner-00": "ten times the pseudo-gradient",
        "miner-01": "the pseudo-gradient with the other sign",
    },
    OuterCodec.INT8: {
        "miner-00": "NaN",
        "miner-01": "never gives it",
        "miner-02": "a lying merger",
    },
    OuterCodec.SPARSE: {
        "miner-00": "garbage",
        "miner-01": "a bogus index",
        "miner-03": "a lying merger",
    },
}
"""Miners with even numbers have stage 0, the others stage 1."""
_HONEST: Final[dict[OuterCodec, float]] = {}
"""codec -> how far the held-out loss of an honest run falls, once it has run."""


async def honest_fall(codec: OuterCodec, folder: Path) -> float:
    """How far the held-out loss falls where nobody attacks."""
    if codec not in _HONEST:
        outcome, wrong = await attacked(codec, {}, folder / "honest")
        assert not wrong, outcome
        _HONEST[codec] = fall(outcome)
    return _HONEST[codec]


@pytest.mark.parametrize("codec", SHORT)
async def test_attackers_of_a_merge_are_named_and_lose_their_weight_and_the_run_goes_on(
    codec: OuterCodec, tmp_path: Path
) -> None:
    outcome, wrong = await attacked(codec, SHORT[codec], tmp_path / "run")
    assert not wrong, outcome
    assert fall(outcome) > 0
    if codec is OuterCodec.NONE:  # the held-out loss is within noise of the honest run's
        assert fall(outcome) > KEPT * await honest_fall(codec, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("codec", OuterCodec)
@pytest.mark.parametrize("name", ATTACKS)
async def test_each_attack_on_a_merge_costs_the_attacker_alone(
    codec: OuterCodec, name: str, tmp_path: Path
) -> None:
    attack = ATTACKS[name]
    if codec not in attack.codecs:
        pytest.skip("there is no such attack on this codec")
    miners = ("miner-01", "miner-02")[: attack.miners]
    outcome, wrong = await attacked(codec, dict.fromkeys(miners, name), tmp_path / "run")
    print(name, codec.value, outcome.heldout, outcome.merges, outcome.weights, outcome.named)
    assert not wrong, outcome
    assert fall(outcome) > KEPT * await honest_fall(codec, tmp_path)
