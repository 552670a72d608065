"""A miner that lets attention cross documents fails its audits at every stage, whatever the codec."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from iota.compute.engine import Engine
from iota.compute.state import StageState
from iota.protocol.messages import AuditKind, Outcome
from tests.support import audit_benches as benches
from tests.support.audit_benches import Open
from tests.support.audited_runs import World
from tests.support.small_runs import MASKED, small_run


@pytest.fixture
async def open_bench() -> AsyncIterator[Open]:
    async with benches.opened() as make:
        yield make


def trained(codec: str, cheat: int | None) -> World:
    """An epoch in which the miner of stage `cheat` computes without masks."""
    world = World(small_run(boundary={"codec": codec}, data=MASKED))
    if cheat is not None:
        data = world.spec.data.model_copy(update={"mask_documents": False, "eos_id": None})
        engine = Engine(world.spec.model_copy(update={"data": data}), cheat)
        engine.load(StageState.initial(world.spec, cheat), version=0)
        world.miners[cheat].engine = engine
    world.train()
    return world


@pytest.mark.parametrize("codec", ["identity", "resbm-anchor"])
@pytest.mark.parametrize("stage", [0, 1, 2])
async def test_ops_and_segments_without_masks_fail_and_honest_ones_pass_to_the_bit(
    stage: int, codec: str, open_bench: Open
) -> None:
    for cheat, expected in ((None, Outcome.PASS), (stage, Outcome.FAIL)):
        bench = await open_bench(trained(codec, cheat))
        miner = bench.world.miners[stage]
        for receipt in bench.sealed.auditable(miner.hotkey):
            result = await bench.audit(stage, AuditKind.OP, step=receipt.step, seq=receipt.seq)
            assert result.outcome is expected, result
        found = await bench.audit(stage, AuditKind.SEGMENT)
        assert found.outcome is expected, found
        if cheat is None:
            assert found.profile == "exact"
