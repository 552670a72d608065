"""Repeats a verdict from its bundle: checks signatures and digests, follows the draw, replays, compares."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TypeVar

import psutil
from pydantic import ValidationError

from iota.chain import ChainError
from iota.client.evidence_files import signed_by
from iota.console.counts import counted
from iota.data.manifest import DataError
from iota.model.layout import count, run_shapes
from iota.objects import snapshot_bytes
from iota.protocol.events import EvidenceMissed, EvidenceReady
from iota.protocol.messages import MAX_PARTS, AuditKind, EvidenceWanted
from iota.protocol.seals import SEAL_DOMAIN
from iota.settings.sentences import sentence
from iota.spec import RunSpec
from validator.audits.auditor import Auditor
from validator.audits.budget import Worker
from validator.audits.evidence import Evidence
from validator.audits.replay import ReplayOptions
from validator.audits.verdicts import verify_verdict
from validator.bundles.archive import (
    MAX_BUNDLE_BYTES,
    MAX_MANIFEST_BYTES,
    BundleReader,
    BundleRefused,
)
from validator.bundles.demands import Demand, demand_of
from validator.bundles.form import MANIFEST, SPEC, Manifest, receipts_name, tokens_bytes
from validator.bundles.outside import Outside, Repeated
from validator.bundles.playback import Playback
from validator.bundles.recording import delivered_of
from validator.core import jobs
from validator.core.all_receipts import check_receipts
from validator.core.audit import Audit
from validator.core.deliveries import Deliveries, Piece
from validator.core.effects import Effect, Say
from validator.core.jobs import Script
from validator.core.merges import MergeAudits
from validator.core.results import EvidenceMissing, MinerFault, Result, Undelivered, inconclusive, result_of
from validator.core.sealed import SealBroken, SealedEpoch
from validator.core.segments import Draws
from validator.core.tasks import MERGE_AUDITS, AuditTask

_T = TypeVar("_T")
MAX_MINERS = 2
"""Miners whose receipts a bundle has: the audited one, and the one whose receipts show its fault."""
_MAX_SPEC = 1 << 20
_MAX_NAMED = 20
"""Damaged members that are named."""


async def repeat(path: Path, options: ReplayOptions, outside: Outside) -> Repeated:
    """Check a bundle and repeat its audit. Nothing is asked of any server, written, or run from the file.

    `outside` is what is known besides the file.

    Raises:
        BundleRefused: the file is no bundle.
        ChainError, DataError: what `outside` names cannot be read.
        OSError: the file cannot be read.
    """
    with BundleReader(path) as reader:
        try:
            manifest = Manifest.model_validate_json(reader.read(MANIFEST, MAX_MANIFEST_BYTES))
        except ValidationError as error:
            raise BundleRefused(f"{MANIFEST} is malformed: {sentence(error)[:300]}") from None
        found = Repeated(manifest)
        try:
            outside.check_orchestrator(found)
            await _check(reader, found, options, outside)
        except (ChainError, DataError):
            raise
        except (BundleRefused, SealBroken, EvidenceMissing) as error:
            found.faults.append(str(error))
        except Exception as error:  # noqa: BLE001 - a stranger's file: what no check foresaw confirms nothing
            found.faults.append(f"the audit cannot be repeated: {type(error).__name__}: {str(error)[:200]}")
        return found


async def _check(reader: BundleReader, found: Repeated, options: ReplayOptions, outside: Outside) -> None:
    manifest, verdict = found.manifest, found.manifest.verdict
    _check_members(reader, found)
    try:
        spec = RunSpec.model_validate_json(reader.read(SPEC, _MAX_SPEC))
    except ValidationError as error:
        raise BundleRefused(f"{SPEC} is no spec: {sentence(error)[:200]}") from None
    if spec.id != manifest.run:
        raise BundleRefused(f"{SPEC} is of run {spec.id[:16]}, and the bundle of {manifest.run[:16]}")
    _check_spec(spec)
    _check_signatures(found)
    source = Playback(spec, reader)
    evidence = Evidence(spec, source, source, source)
    record = await evidence.record(manifest.seal.seal)
    if verdict.miner not in {miner.hotkey for miner in record.miners}:
        raise BundleRefused(f"{verdict.miner} has no part in the record")
    there = reader.names()
    with_receipts = {m.hotkey for m in record.miners if receipts_name(record.epoch, m.hotkey) in there}
    if len(with_receipts) > MAX_MINERS:
        raise BundleRefused(f"it has the receipts of {counted(len(with_receipts), 'miner')}")
    sealed = await evidence.sealed(record, with_receipts | {verdict.miner})
    found.checked.append(
        "record, plans and receipts are those that the orchestrator sealed, and the receipts are signed"
    )
    _check_memory(sealed, verdict.miner)
    worker = Worker()
    try:
        auditor = Auditor(evidence, worker, options)
        found.result = await _Repeating(found, sealed, evidence, auditor).run()
    finally:
        await asyncio.to_thread(worker.close)
    if manifest.task.kind is not AuditKind.RECORDS:
        await outside.check_draw(found)
    await outside.check_tokens(found, spec, source.tokens)


def _check_members(reader: BundleReader, found: Repeated) -> None:
    """Raise BundleRefused where a member is not the one that the manifest names."""
    members = {member.name: member for member in found.manifest.members}
    strange = sorted(reader.names() - members.keys() - {MANIFEST})
    damaged = [name for name, member in sorted(members.items()) if not reader.is_intact(member)]
    if strange or damaged:
        raise BundleRefused("not as the manifest has them: " + ", ".join([*damaged, *strange][:_MAX_NAMED]))
    found.checked.append(f"{counted(len(members), 'member')} with the digests of the manifest")


def _check_spec(spec: RunSpec) -> None:
    """Raise BundleRefused for a spec whose run could not be: its numbers are used as sizes."""
    stages = range(spec.layout.stages)
    parts = max(count(run_shapes(spec, stage)) for stage in stages) / spec.outer.part_elements
    if parts > MAX_PARTS or tokens_bytes(spec) > MAX_BUNDLE_BYTES:
        raise BundleRefused(f"{SPEC} has sizes that no run has")


def _check_signatures(found: Repeated) -> None:
    """Raise BundleRefused for a seal or a verdict that is not signed by whom the manifest names."""
    manifest, verdict, seal = found.manifest, found.manifest.verdict, found.manifest.seal
    if seal.seal.epoch != verdict.epoch:
        raise BundleRefused(f"the seal is of epoch {seal.seal.epoch}, the verdict of epoch {verdict.epoch}")
    if not signed_by(manifest.orchestrator)(SEAL_DOMAIN, seal.payload(manifest.run), seal.signature):
        raise BundleRefused(f"the seal is not signed by {manifest.orchestrator}")
    if not verdict.signature or not verify_verdict(manifest.run, verdict, manifest.validator):
        raise BundleRefused(f"the verdict is not signed by {manifest.validator}")
    found.checked.append(
        f"the seal is signed by {manifest.orchestrator}, the verdict by {manifest.validator}"
    )


def _check_memory(sealed: SealedEpoch, hotkey: str) -> None:
    """Raise BundleRefused for a stage that the run has not, or that this machine cannot hold."""
    spec, stage = sealed.spec, sealed.miners[hotkey].stage
    if stage >= spec.layout.stages:
        raise BundleRefused(f"stage {stage} is none of the run's")
    needed, there = snapshot_bytes(spec, stage), psutil.virtual_memory().available
    if needed > there:
        raise BundleRefused(
            f"a replay needs {needed >> 20} MiB of memory, and this machine has {there >> 20}"
        )


class _Repeating:
    """One audit, its jobs done from the bundle."""

    def __init__(self, found: Repeated, sealed: SealedEpoch, evidence: Evidence, auditor: Auditor) -> None:
        self._found, self._sealed, self._evidence, self._auditor = found, sealed, evidence, auditor
        self._manifest = found.manifest
        self._hotkey, self._task = found.verdict.miner, found.manifest.task.task()
        self._deliveries = Deliveries(sealed.epoch, self._asked)

    async def run(self) -> Result:
        """The result of the audit here. Raises BundleRefused where the task does not follow from the draw."""
        verdict, task = self._found.verdict, self._task
        if (verdict.audit, verdict.seq) != (task.kind, task.seq):
            raise BundleRefused(f"the verdict is of another audit than {task.name[:40]}")
        manifest = self._manifest
        draws = Draws(manifest.block_hash, manifest.link, manifest.validator)
        demand = demand_of(self._sealed, draws, self._hotkey, task)
        if demand is None:
            raise BundleRefused(f"the draw demands no {task.name[:40]} of {self._hotkey}")
        if demand is Demand.RECORDS:
            return await self._records()
        if demand is Demand.OWED:
            self._assume("that the validator owed this audit, since its last one was undecided")
        self._found.checked.append(f"{task.name} follows from the draw of the link and the block's hash")
        if task.kind in MERGE_AUDITS:
            return await self._merge(self._sealed, manifest.block_hash, manifest.link)
        return await self._script(Audit(self._sealed, self._hotkey, task, self._deliveries).run())

    async def _records(self) -> Result:
        """What the receipts show by themselves."""
        faults = await asyncio.to_thread(check_receipts, self._sealed)
        named = (self._hotkey, self._task.seq)
        return result_of(next((f for f in faults if (f.hotkey, f.seq) == named), None), self._task.seq)

    async def _merge(self, sealed: SealedEpoch, block_hash: str, link: str) -> Result:
        """What merging the part again, or making the base again, gives. The file lacks other parts."""
        found: dict[tuple[str, AuditTask], Result] = {}

        def file(hotkey: str, task: AuditTask, result: Result) -> None:
            found[hotkey, task] = result

        audits = MergeAudits(sealed, block_hash, link, file, lambda text: None)
        base = (self._hotkey, self._task) in audits.base_tasks()
        await self._script(audits.check_base() if base else audits.run())
        key = (self._hotkey, self._task)
        return found.get(key, inconclusive(self._task.seq, "the merge does not show what it is accused of"))

    async def _script(self, script: Script[_T]) -> _T:
        """Carry out the jobs of an audit."""
        answer: object = None
        try:
            while True:
                job = script.throw(answer) if isinstance(answer, Exception) else script.send(answer)
                try:
                    answer = await self._answer(job)
                except (EvidenceMissing, MinerFault, Undelivered) as error:
                    answer = error
        except StopIteration as end:
            result: _T = end.value
            return result

    async def _answer(self, job: jobs.Job | jobs.Wait) -> object:
        match job:
            case (
                jobs.Wait()
                | jobs.AwaitBlock()
                | jobs.Settle()
                | jobs.FetchRecord()
                | jobs.FindFlags()
                | jobs.FetchPast()
                | jobs.FetchVerdicts()
            ):
                raise AssertionError(f"an audit has no {type(job).__name__}")
            case jobs.FetchBase() | jobs.LoadBase() | jobs.HashDelta() if job.base.own is not None:
                before = job.base.epoch
                self._assume(f"that the record of epoch {before} has what {self._hotkey} contributed as here")
                return await self._delivered(job)
            case jobs.LoadSnapshot() | jobs.LoadBase() | jobs.CompareState() | jobs.HashDelta():
                return await self._delivered(job)
            case _:
                return await self._auditor.run(job)

    async def _delivered(self, job: jobs.AuditJob) -> object:
        """The answer of a job that reads what the miner delivered."""
        try:
            return await self._auditor.run(job)
        except MinerFault:
            if delivered_of([job]):
                self._assume(f"that {self._hotkey} delivered the snapshot that is in the file")
            raise

    def _asked(self, effect: Effect) -> None:
        """Decide what is asked for: what the miner delivered is in the bundle."""
        wanted = effect.report if isinstance(effect, Say) else None
        if not isinstance(wanted, EvidenceWanted):
            return
        piece = Piece(wanted.item, wanted.version)
        at = {"epoch": wanted.epoch, "miner": wanted.miner, **piece._asdict()}
        delivered = {Piece(given.item, given.version): given for given in self._manifest.delivered}
        given = delivered.get(piece)
        if given is not None:
            self._deliveries.decide(EvidenceReady.model_validate({**at, "stored": given.stored}))
            return
        self._assume(f"that {wanted.miner} was asked for its {piece} and did not deliver in time")
        self._deliveries.decide(EvidenceMissed.model_validate({**at, "deadline": 0.0, "live": True}))

    def _assume(self, what: str) -> None:
        if what not in self._found.assumed:
            self._found.assumed.append(what)
