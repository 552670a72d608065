"""Attacks on the merge, each with what must come of it in a swarm of two stages with three replicas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from iota.objects.delta_sizes import SPARSE_KEPT
from iota.spec import OuterCodec
from tests.support.cheat_cases import STEPS, Case
from tests.support.cheat_runs import Outcome, faults, run_case

EPOCHS: Final = 3
"""Within which each cheat must have lost its weight."""
KEPT: Final = 0.85
"""Share of the honest run's fall of the held-out loss that a run with a cheat must have. Without the cheat a
stage has two contributions in place of three."""
FEEDBACK: Final = frozenset({OuterCodec.INT8, OuterCodec.SPARSE})


@dataclass(frozen=True)
class Attack:
    """One way to attack a merge."""

    program: str
    """Of `tests.support.cheats`."""
    said: str
    """What the orchestrator says with its name; empty where validators alone find it, or nobody need."""
    codecs: frozenset[OuterCodec] = frozenset(OuterCodec)
    miners: int = 1
    """How many of the swarm do it."""
    paid: bool = False
    """It spoils nothing, so that what it does besides may be paid."""
    found: bool = True
    """Something is held against it."""
    wait_s: float = 60.0
    """The longest that a merge may take on a loaded machine: half of a merge's first deadline."""


_LEFT_OUT: Final = "is left out of the merge of stage"
_ABSENT: Final = "gave no pseudo-gradient in time"
_FIRST_DEADLINE_S: Final = 120.0
ATTACKS: Final = {
    "ten times the pseudo-gradient": Attack("contributions:scaled", "out_of_bounds"),
    "the pseudo-gradient with the other sign": Attack("states:flipped_delta", "opposed"),
    "NaN": Attack("contributions:nan", "not_finite"),
    "garbage": Attack("contributions:garbage", _LEFT_OUT),
    "garbage of another size": Attack("contributions:short", _ABSENT),
    "a bogus index": Attack("contributions:bogus_index", "unreadable", frozenset(SPARSE_KEPT)),
    "all in one chunk": Attack("contributions:one_chunk", "out_of_bounds"),
    "never gives it": Attack("states:no_delta", _ABSENT),
    "gives it late": Attack("contributions:late", _ABSENT),
    "overwrites it": Attack("contributions:overwritten", "", paid=True, found=False),
    "forged feedback": Attack("contributions:forged_feedback", "", FEEDBACK),
    "a lying merger": Attack("merges:lying_merger", "merged part"),
    "a lying pair of mergers": Attack("merges:lying_merger", "merged part", miners=2),
    "a slow merger": Attack("merges:late_merger", "", paid=True, found=False),
    "a merger that keeps its copy": Attack(
        "merges:withholding_merger", "did not merge a part in time", paid=True, wait_s=1.5 * _FIRST_DEADLINE_S
    ),
}


def swarm_of(codec: OuterCodec, attacks: Mapping[str, str], **more: Any) -> Case:
    """A swarm whose miners, by name, attack by name; `more` as in `Case`."""
    values = {
        "schedule": {"heldout": 4},
        "outer": {"codec": codec.value, "part_elements": 50_000},
        "audit": {"window_steps": STEPS, "deadline_s": 60},
    }
    options = {"stages": 2, "replicas": 3, "microbatches": 6, "values": values}
    cheats = {miner: ATTACKS[attack].program for miner, attack in attacks.items()}
    return Case(cheats, epochs=EPOCHS, more=options, **more)


async def attacked(codec: OuterCodec, attacks: Mapping[str, str], root: Path) -> tuple[Outcome, list[str]]:
    """Run a swarm with these attacks, by miner; what it came to, and what should not be so."""
    used = {miner: ATTACKS[name] for miner, name in attacks.items()}
    paid = frozenset(miner for miner, attack in used.items() if attack.paid)
    found = any(attack.found for attack in used.values())
    case = swarm_of(codec, attacks, accomplices=paid, unpaid="" if found else "it spoils nothing")
    outcome = await run_case(case, root)
    wrong = faults(case, outcome) if attacks else []
    for miner, attack in used.items():
        said = any(miner in line and attack.said in line for line in outcome.named)
        wrong += [] if said or not attack.said else [f"nobody said of {miner}: {attack.said}"]
        wrong += ["the attack cost its miner its pay"] if attack.paid and not outcome.weights[miner] else []
    longest = max((attack.wait_s for attack in used.values()), default=_FIRST_DEADLINE_S)
    wrong += [f"a merge took {took:.0f} s" for took in outcome.merges if took > longest]
    return outcome, wrong


def fall(outcome: Outcome) -> float:
    """How far the held-out loss fell from the first base to the last that was measured."""
    return outcome.heldout[0] - outcome.heldout[max(outcome.heldout)]
