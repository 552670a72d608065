"""A validator's parts over a run of `audited_runs`, without its network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from iota.client.run_objects import RunObjects
from iota.compute.state import state_bytes
from iota.protocol.frames import EvidenceItem
from iota.protocol.messages import AuditKind, EvidenceWanted
from iota.protocol.receipts import (
    OpKind,
    Receipt,
)
from tests.support.audited_miners import Miner
from tests.support.audited_runs import THREADS, World
from tests.support.evidence_answers import delivered, kept_frames, missed
from validator.audits.auditor import Auditor
from validator.audits.budget import Worker
from validator.audits.evidence import Evidence
from validator.audits.replay import ReplayOptions
from validator.core.audit import Audit
from validator.core.deliveries import Deliveries
from validator.core.effects import Effect, Say
from validator.core.jobs import (
    AwaitBlock,
    Base,
    FetchPast,
    FetchRecord,
    FetchVerdicts,
    Job,
    Script,
    Settle,
    Wait,
)
from validator.core.receipt_checks import false_commit
from validator.core.results import EvidenceMissing, MinerFault, Result, Undelivered
from validator.core.sealed import SealedEpoch
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
    frames: Callable[[Miner, int], bytes | None]
    feedback: Callable[[Miner, int], bytes | None]
    asked: list[tuple[EvidenceItem, int]] = field(default_factory=list)
    """Evidence that miners were asked for."""

    async def audit(self, stage: int, kind: AuditKind, *, step: int = 0, seq: int = 0) -> Result:
        """Of an op or a word the one with this seq, of a segment the one that `step` is in."""
        miner = self.world.miners[stage]
        if kind is AuditKind.SEGMENT:
            found = next(s for s in self.sealed.segments(miner.hotkey) if s.first <= step < s.last)
            seq, step = found.seq, found.first
        deliveries: Deliveries

        def asked(effect: Effect) -> None:
            assert isinstance(effect, Say)
            if isinstance(effect.report, EvidenceWanted):
                self.delivered(deliveries, miner, effect.report)

        deliveries = Deliveries(self.sealed.epoch, asked)
        audit = Audit(self.sealed, miner.hotkey, AuditTask(kind, kind.value, seq, step), deliveries)
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
                raise AssertionError("evidence is decided as soon as it is asked for")
            case AwaitBlock() | Settle() | FetchRecord() | FetchPast() | FetchVerdicts():
                raise AssertionError(f"an audit has no {job}")
        try:
            return await self.auditor.run(job)
        except (EvidenceMissing, MinerFault, Undelivered) as error:
            return error

    def delivered(self, deliveries: Deliveries, miner: Miner, wanted: EvidenceWanted) -> None:
        """Deliver what a miner has of evidence that is wanted."""
        answers: dict[EvidenceItem, Callable[[Miner, int], bytes | None]] = {
            EvidenceItem.SNAPSHOT: self.deliver,
            EvidenceItem.FRAMES: self.frames,
            EvidenceItem.FEEDBACK: self.feedback,
        }
        data = answers[wanted.item](miner, wanted.version)
        self.asked.append((wanted.item, wanted.version))
        answer = missed(wanted) if data is None else delivered(self.world, wanted, data)
        deliveries.decide(answer)

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
    frames: Callable[[Miner, int], bytes | None] | None = None,
    feedback: Callable[[Miner, int], bytes | None] | None = None,
    options: ReplayOptions | None = None,
) -> Bench:
    """The validator's parts for one trained epoch.

    `deliver` is how miners answer for snapshots, by version, `frames` for frames, by step, `feedback` for
    error feedback: as they kept them.
    `options` are by default those of the world's miners.
    """
    objects = RunObjects(world, world)  # type: ignore[arg-type]
    evidence = Evidence(world.spec, world, objects, world)  # type: ignore[arg-type]
    worker = Worker()
    options = options or ReplayOptions(threads=THREADS, max_threads=THREADS)
    auditor = Auditor(evidence, worker, options)
    sealed = await evidence.sealed(await evidence.record(world.seal_of(epoch)))
    kept = frames or (lambda miner, step: kept_frames(world, miner, step, epoch))
    held = feedback or (lambda miner, joined: world.held[epoch, miner.hotkey])
    return Bench(world, evidence, auditor, worker, sealed, deliver, kept, held)


Open = Callable[..., Coroutine[Any, Any, Bench]]
"""Opens a bench, as `bench` does."""


@asynccontextmanager
async def opened() -> AsyncIterator[Open]:
    """Opens benches over worlds, and closes all of them at the end."""
    made: list[Bench] = []

    async def make(world: World, epoch: int = 0, **options: Any) -> Bench:
        made.append(await bench(world, epoch, **options))
        return made[-1]

    yield make
    for each in made:
        each.worker.close()
