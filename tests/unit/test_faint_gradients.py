"""A neighbour that sends no gradient, or next to none, accuses nobody of standing still."""

from __future__ import annotations

import pytest
import torch

from iota.codec.shapes import payload_shape
from iota.compute.names import Microbatch, Output
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind
from iota.spec import AuditSpec
from tests.support import audited_miners as miners
from tests.support.audit_benches import bench
from tests.support.audited_runs import World
from tests.support.small_runs import small_run


class FaintBackward(miners.Honest):
    """Runs its forwards, and sends the same small value as each element of its gradients."""

    def __init__(self, value: float) -> None:
        self.value = value

    def output(self, miner: miners.Miner, mb: Microbatch, kind: OpKind, output: Output) -> Output:
        if kind is not OpKind.BACKWARD:
            return output
        return miners.resent(miner.spec, output, torch.full(payload_shape(miner.spec), self.value))


@pytest.mark.parametrize("value", [0.0, 1e-30])
@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
async def test_whose_neighbour_sends_no_gradient_is_not_accused_of_standing_still(
    optimizer: str, value: float
) -> None:
    spec = small_run(optimizer={"kind": optimizer}, audit=AuditSpec(commit_every=2))
    world = World(spec, {1: FaintBackward(value)})
    world.train()
    opened = await bench(world)
    try:
        assert await opened.check(0) is None
        assert (await opened.audit(0, AuditKind.SEGMENT)).outcome is Outcome.PASS
        assert (await opened.audit(1, AuditKind.SEGMENT)).outcome is Outcome.FAIL
    finally:
        opened.worker.close()
