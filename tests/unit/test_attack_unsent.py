"""Stage 0 digests sums over tokens: what has the same sums and is not the gradient fails its segment."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from torch import Tensor

from iota.compute.engine import UNSENT_EVERY, Engine
from iota.compute.names import Microbatch
from iota.compute.output import DeviceOutput
from iota.compute.state import StageState
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind
from tests.support import audit_benches as benches
from tests.support.audit_benches import Open
from tests.support.audited_runs import World
from tests.support.small_runs import small_run


class Mixed(Engine):
    """Gives a token the gradient of another one among those that are summed."""

    def backward(self, mb: Microbatch, version: int, gradient: Tensor) -> DeviceOutput:
        made = super().backward(mb, version, gradient)
        table = self._steps[mb.step].sums["embed.weight"]
        first, second = table.abs().sum(1).nonzero().flatten()[:2].tolist()
        table[[first, second]] = table[[second, first]]
        return made


@pytest.fixture
async def open_bench() -> AsyncIterator[Open]:
    async with benches.opened() as make:
        yield make


async def test_a_gradient_of_other_tokens_with_the_same_sums_fails_its_segment(open_bench: Open) -> None:
    world = World(small_run())
    assert world.spec.data.sequence_length <= UNSENT_EVERY, "all tokens are in one sum"
    engine = Mixed(world.spec, 0)
    engine.load(StageState.initial(world.spec, 0), version=0)
    world.miners[0].engine = engine
    world.train()
    bench = await open_bench(world)
    receipt = bench.op(0, OpKind.BACKWARD, step=0)
    result = await bench.audit(0, AuditKind.OP, step=0, seq=receipt.seq)
    assert result.outcome is Outcome.PASS, "its digest alone does not show it"
    assert (await bench.audit(0, AuditKind.SEGMENT, step=0)).outcome is Outcome.FAIL
