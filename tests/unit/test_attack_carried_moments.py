"""Whose moments begin an epoch: those of the sealed record, and none that were committed to afterwards."""

from __future__ import annotations

from dataclasses import replace

from iota.compute.state import StageState
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind
from iota.spec import AuditSpec
from tests.support import audit_benches as benches
from tests.support.audited_runs import World
from tests.support.small_runs import small_run
from validator.core.results import Result


def _forged(*, commits: bool, sealed: bool = True) -> World:
    """Two epochs of a miner that begins the second one with other moments than its own.

    Args:
        commits: it commits to them as its last state of epoch 0, after the seal.
        sealed: the record of epoch 0 has its true COMMIT; else it gave no pseudo-gradient there.
    """
    spec = small_run(optimizer={"state": "carry"}, audit=AuditSpec(commit_every=1))
    world = World(spec)
    world.train(0)
    miner, last = world.miners[1], spec.schedule.steps
    if not sealed:  # what came after it are merges, which are not looked at here
        del miner.ended[0]
        at = next(i for i, r in enumerate(miner.receipts) if (r.kind, r.step) == (OpKind.COMMIT, last))
        del miner.receipts[at:]
    state = miner.engine.state()
    forged = {name: -1e3 * m if name.startswith("exp_avg.") else m for name, m in state.moments.items()}
    if commits:
        miner.snapshots[last] = replace(miner.snapshots[last], moments=forged)
        miner.commit(0, last)
    miner.engine.load(StageState(state.weights, forged), version=0)
    world.train(1)
    return world


async def _audited(world: World, step: int = 0) -> Result:
    bench = await benches.bench(world, 1)
    try:
        if (fault := await bench.check(1)) is not None:
            assert "moments that it began the epoch with" in fault.reason
            return Result(Outcome.FAIL, 0, "records")
        return await bench.audit(1, AuditKind.SEGMENT, step=step)
    finally:
        bench.worker.close()


async def test_moments_of_a_second_commit_after_the_seal_are_not_what_an_epoch_begins_with() -> None:
    """The door takes any COMMIT of a sealed epoch. No segment ends there, so no audit would see it."""
    result = await _audited(_forged(commits=True))
    assert result.outcome is Outcome.FAIL


async def test_moments_of_a_commit_that_no_record_holds_are_not_what_an_epoch_begins_with() -> None:
    """Who keeps its last COMMIT back until the seal has no pseudo-gradient in the merge, and begins anew."""
    result = await _audited(_forged(commits=True, sealed=False))
    assert result.outcome is Outcome.FAIL


async def test_moments_that_are_not_those_that_ended_the_last_epoch_show_without_a_draw() -> None:
    """Later segments and epochs go on from them, and their audits would pass."""
    result = await _audited(_forged(commits=False), step=1)
    assert result.outcome is Outcome.FAIL
