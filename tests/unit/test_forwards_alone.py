"""A FORWARD whose microbatch another attempt goes on with is paid, and audited with its step."""

from __future__ import annotations

import pytest

from iota.compute.names import Microbatch, Output
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind
from iota.spec import AuditSpec
from tests.support import audited_miners as miners
from tests.support.audit_benches import bench
from tests.support.audited_runs import World
from tests.support.small_runs import small_run
from validator.core.sealed import SealedEpoch

LATER = (1, 2)
"""Step and microbatch that another attempt goes on with: of a version that no COMMIT shows."""


class NoiseLater(miners.Noise):
    """Sends noise for one FORWARD."""

    def output(self, miner: miners.Miner, mb: Microbatch, kind: OpKind, output: Output) -> Output:
        return super().output(miner, mb, kind, output) if (mb.step, mb.index) == LATER else output


async def test_a_segment_shows_a_false_forward_that_its_miner_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(small_run(audit=AuditSpec(commit_every=5)), {1: NoiseLater()})
    world.train()
    liar, counted = world.miners[1].hotkey, SealedEpoch.counted

    def without(self: SealedEpoch, hotkey: str, step: int) -> tuple[tuple[int, int], ...]:
        found = counted(self, hotkey, step)
        return tuple(c for c in found if hotkey != liar or (step, c[0]) != LATER)

    opened = await bench(world)
    try:
        forward = opened.op(1, OpKind.FORWARD, *LATER)
        monkeypatch.setattr(SealedEpoch, "counted", without)
        assert opened.sealed.alone(liar, LATER[0]) == [forward]
        result = await opened.audit(1, AuditKind.SEGMENT)
        assert (result.outcome, result.seq) == (Outcome.FAIL, forward.seq)
    finally:
        opened.worker.close()
