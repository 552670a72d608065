"""A miner of a run with overlap that is killed before any write to its disk goes on to the same bits."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest

from iota.compute import Microbatch
from iota.compute.state import StageState
from iota.protocol.receipts import OpKind
from iota.spec import RunSpec
from miner.core.effects import ApplyMerge, FetchBase
from tests.support.overlapped_replicas import LateReplica, OverlappedSwarm, overlapped
from tests.support.small_runs import assert_same_bits, sample, small_run

pytestmark = pytest.mark.usefixtures("one_thread")

EPOCHS = 3
SPEC: RunSpec = small_run(
    layout={"cuts": [4]},
    schedule={"epochs": EPOCHS, "steps": 2, "microbatches": 1},
    outer={"overlap": "one_epoch", "codec": "int8", "eta": 0.7, "momentum": 0.9, "part_elements": 1 << 14},
)
SCRIPT = [
    ("begin", 0),
    ("step", 0, 0),
    ("step", 0, 1),
    ("begin", 1),
    ("step", 1, 0),
    ("apply", 0),
    ("step", 1, 1),
    ("begin", 2),
    ("apply", 1),
    ("step", 2, 0),
    ("step", 2, 1),
    ("apply", 2),
]
"""What the orchestrator tells the miner, in order."""


class _Killed(BaseException):
    """The process ends before a write."""


class _Writes:
    """Counts writes, and kills the process before one of them."""

    def __init__(self) -> None:
        self.count, self.last = 0, 0

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The call, unless the process is dead."""

        def write(*args: Any, **keywords: Any) -> Any:
            self.count += 1
            if self.last and self.count >= self.last:
                raise _Killed
            return call(*args, **keywords)

        return write


@contextmanager
def counted_writes(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Writes]:
    """All that changes names on the disk, and each receipt."""
    writes = _Writes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", writes.before(Path.rename))
        patch.setattr(Path, "replace", writes.before(Path.replace))
        patch.setattr(shutil, "rmtree", writes.before(shutil.rmtree))
        patch.setattr("os.fsync", writes.before(lambda _: None))
        yield writes


async def go_through(replica: LateReplica, merges: dict[int, ApplyMerge]) -> None:
    """The script from the admission to the newest epoch whose first COMMIT is receipted."""
    if replica.disk.newest_base(overlaps=True) is None:
        await replica.bases.fetch(FetchBase(0, None, ()), {})
    begun = [r.epoch for r in replica.receipts() if r.kind is OpKind.COMMIT and r.version == 0]
    for what, epoch, *step in SCRIPT[SCRIPT.index(("begin", max(begun, default=0))) :]:
        if what == "begin":
            await replica.begin(epoch, carries=epoch > 0)
        elif what == "step":
            mb = Microbatch(epoch, step[0], 0)
            replica.runner.engine.loss(mb, mb.step, None, sample(SPEC)(epoch, mb.step, 0))
            await replica.step(epoch, mb.step)
        elif not (replica.disk.newest_base(overlaps=True) or 0) > epoch:
            await replica.bases.apply(merges[epoch], {})


async def test_the_bits_are_those_of_who_was_not_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(epoch: int, step: int, index: int) -> Any:
        return sample(SPEC)(epoch, step, index + 1)

    async with overlapped(tmp_path, SPEC, [sample(SPEC), other]) as swarm:
        merges = await undisturbed(swarm)
        [expected] = [replica.state() for replica in swarm.pipelines[0]]
        end = swarm.pipelines[0][0].base(EPOCHS)[1]
        with counted_writes(monkeypatch) as writes:
            await alone(swarm, tmp_path / "counted", merges, writes, expected)
            points = writes.count
        assert points > 40
        for last in range(2, points + 1, 3):
            with counted_writes(monkeypatch) as writes:
                writes.last = last
                found = await alone(swarm, tmp_path / str(last), merges, writes, expected)
                assert found == end, last


async def undisturbed(swarm: OverlappedSwarm) -> dict[int, ApplyMerge]:
    """All epochs of two replicas; returns the merges."""
    merges: dict[int, ApplyMerge] = {}
    for epoch in range(EPOCHS):
        await swarm.begin(epoch)
        await swarm.train(epoch)
        if epoch:
            await swarm.apply([merges[epoch - 1]])
        [merges[epoch]] = await swarm.merge(epoch)
    await swarm.apply([merges[EPOCHS - 1]])
    return merges


async def alone(
    swarm: OverlappedSwarm, root: Path, merges: dict[int, ApplyMerge], writes: _Writes, expected: StageState
) -> object:
    """One replica with the merges of both, killed before write number `writes.last` and started again.

    Returns the roots of its last base.
    """
    replica = swarm.another(root)
    try:
        with suppress(_Killed, Exception) if writes.last else nullcontext():
            await go_through(replica, merges)
        if writes.last:
            replica.close()
            writes.last = 0
            replica = swarm.another(root)
            await go_through(replica, merges)
        assert_same_bits([replica.state()], [expected])
        keys = [receipt.key for receipt in replica.receipts()]
        assert len(set(keys)) == len(keys), "nothing is receipted twice"
        return replica.base(EPOCHS)[1]
    finally:
        replica.close()
