"""A validator's parts over a run of `audited_runs`, without its network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from blake3 import blake3

from iota.client.run_objects import RunObjects
from iota.compute.state import state_bytes
from iota.objects import SnapshotKey
from iota.protocol.events import SnapshotMissed, SnapshotReady
from iota.protocol.frames import StoredObject
from iota.protocol.messages import AuditKind, SnapshotWanted
from iota.protocol.receipts import (
    OpKind,
    Receipt,
)
from tests.support.audited_miners import Miner
from tests.support.audited_runs import THREADS, World
from validator.audits.auditor import Auditor
from validator.audits.budget import Worker
from validator.audits.evidence import Evidence
from validator.audits.replay import ReplayOptions
from validator.core.audit import Audit
from validator.core.effects import Effect, Say
from validator.core.jobs import (
    AwaitBlock,
    Base,
    FetchLastCommit,
    FetchPast,
    FetchRecord,
    FetchVerdicts,
    Job,
    MeasureHeldout,
    Script,
    Settle,
    Wait,
)
from validator.core.receipt_checks import false_commit
from validator.core.results import EvidenceMissing, MinerFault, Result
from validator.core.sealed import SealedEpoch
from validator.core.snapshots import Snapshots
from validator.core.tasks import AuditTask


@dataclass
class Bench:
    """A validator's parts over a World, without its network."""

    world: World
    evidence: Evidence
    auditor: Auditor
    worker: Worker
    sealed: SealedEpoch
    deliver: Callable[[Miner, int], bytes | None]

    async def audit(self, stage: int, kind: AuditKind, *, step: int = 0, seq: int = 0) -> Result:
        """Of an op or a word the one with this seq, of a segment the one that `step` is in."""
        miner = self.world.miners[stage]
        if kind is AuditKind.SEGMENT:
            found = next(s for s in self.sealed.segments(miner.hotkey) if s.first <= step < s.last)
            seq, step = found.seq, found.first
        snapshots: Snapshots

        def asked(effect: Effect) -> None:
            assert isinstance(effect, Say)
            if isinstance(effect.report, SnapshotWanted):
                self.delivered(snapshots, miner, effect.report)

        snapshots = Snapshots(self.sealed.epoch, asked)
        audit = Audit(self.sealed, miner.hotkey, AuditTask(kind, kind.value, seq, step), snapshots)
        return await self.run(audit.run())

    async def check(self, stage: int) -> MinerFault | None:
        """The fault that a miner's receipts show by themselves."""
        return false_commit(self.sealed, self.world.miners[stage].hotkey)

    async def run(self, script: Script[Result]) -> Result:
        """Carry out the jobs of a script; a wait is always in vain."""
        answer: object = None
        try:
            while True:
                job = script.throw(answer) if isinstance(answer, Exception) else script.send(answer)
                answer = await self._answer(job)
        except StopIteration as end:
            result: Result = end.value
            return result

    async def _answer(self, job: Job | Wait) -> object:
        match job:
            case Wait():
                raise AssertionError("each snapshot is decided as soon as it is asked for")
            case FetchLastCommit():
                return await self.evidence.last_commit(job.epoch, job.miner)
            case AwaitBlock() | Settle() | FetchRecord() | FetchPast() | FetchVerdicts() | MeasureHeldout():
                raise AssertionError(f"an audit has no {job}")
        try:
            return await self.auditor.run(job)
        except (EvidenceMissing, MinerFault) as error:
            return error

    def delivered(self, snapshots: Snapshots, miner: Miner, wanted: SnapshotWanted) -> None:
        """Deliver what a miner has of a snapshot that is wanted."""
        data = self.deliver(miner, wanted.version)
        if data is None:
            late = SnapshotMissed(
                epoch=wanted.epoch, miner=miner.hotkey, version=wanted.version, deadline=1.0, live=True
            )
            snapshots.decide(late)
            return
        key = str(SnapshotKey(self.world.run, wanted.epoch, miner.hotkey, wanted.version))
        self.world.store[key] = data
        stored = StoredObject(key=key, digest=blake3(data).hexdigest(), size=len(data))
        snapshots.decide(
            SnapshotReady(epoch=wanted.epoch, miner=miner.hotkey, version=wanted.version, stored=stored)
        )

    def base(self, stage: int) -> Base:
        return Base(self.sealed.epoch, stage, self.sealed.base(stage))

    def op(self, stage: int, kind: OpKind, step: int, index: int = 0) -> Receipt:
        found = self.sealed.receipt(self.world.miners[stage].hotkey, step, index, 0, kind)
        assert found is not None
        return found


async def bench(
    world: World,
    epoch: int = 0,
    *,
    deliver: Callable[[Miner, int], bytes | None] = lambda miner, version: state_bytes(
        miner.snapshots[version]
    ),
) -> Bench:
    """The validator's parts for one trained epoch; `deliver` is how miners answer for snapshots."""
    objects = RunObjects(world, world)  # type: ignore[arg-type]
    evidence = Evidence(world.spec, world, objects, world)  # type: ignore[arg-type]
    worker = Worker()
    auditor = Auditor(evidence, worker, ReplayOptions(threads=THREADS, max_threads=THREADS))
    sealed = await evidence.sealed(await evidence.record(world.seal_of(epoch)))
    return Bench(world, evidence, auditor, worker, sealed, deliver)
