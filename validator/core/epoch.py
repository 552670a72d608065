"""One sealed epoch, from its draw to its last verdict. Every drawn audit is filed once, by the deadline."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from iota.protocol.events import EpochClose
from iota.protocol.messages import AuditsDone, Heldout, Reveal
from iota.protocol.records import MinerRecord
from iota.spec import RunSpec
from validator.core import effects, jobs
from validator.core.audit import Audit, needed_versions
from validator.core.containment import contained
from validator.core.effects import Effect, Log, Say
from validator.core.facts import Expired, RecordBroken, RecordGone, TransportFailed
from validator.core.history import History
from validator.core.jobs import Base, Script
from validator.core.receipt_checks import stalled_step
from validator.core.results import EvidenceMissing, MinerFault, Result, inconclusive, result_of
from validator.core.sealed import SealedEpoch
from validator.core.snapshots import Snapshots
from validator.core.tasks import AuditTask, drawn_tasks, epoch_work, records_task, seal_task

SNAPSHOT_SHARE: Final = 1 / 3
"""Share of the audit deadline that a miner has to deliver a snapshot, so that time is left to replay it."""
_T = TypeVar("_T")
_REASON_CHARS: Final = 300
"""Length to which a broken seal's error is cut in a verdict."""


class EpochAudit:
    """All audits of one epoch, as a script."""

    def __init__(
        self, spec: RunSpec, seal: EpochClose, link: str, history: History, emit: Callable[[Effect], None]
    ) -> None:
        self.epoch = seal.epoch
        self._spec, self._seal, self._link, self._history, self._emit = spec, seal, link, history, emit
        self.snapshots = Snapshots(self.epoch, spec.audit.deadline_s * SNAPSHOT_SHARE, emit)
        self.expires = True
        """Whether Expired may be thrown into the script now. It is thrown once at most."""
        self.activity = f"epoch {self.epoch}: waiting for block {seal.block}"
        self._miners: tuple[MinerRecord, ...] | None = None
        """Those of the record, once it is at hand."""

    def script(self) -> Script[None]:
        """From the draw to the report that all audits are done."""
        failed = yield from self._contained(self._audits(), "its audits", lambda reason: reason)
        if failed is not None:
            yield from self._file_broken(RecordBroken(failed, self._miners))

    def _audits(self) -> Script[None]:
        try:
            block_hash: str = yield jobs.AwaitBlock(self._seal.block)
            self._emit(Say(Reveal(epoch=self.epoch, link=self._link)))
            # The coordinator refuses verdicts and requests of a validator that has not revealed its link.
            yield jobs.Settle()
            sealed: SealedEpoch = yield jobs.FetchRecord(self.epoch)
        except Expired:
            self._log("no draw before the deadline, so no audits", error=True)
            return
        except RecordGone:
            self._log("its audits are closed already")
            return
        except RecordBroken as broken:
            yield from self._file_broken(broken)
            return
        self._miners = sealed.record.miners
        self._emit(effects.KeepWork(epoch_work(sealed)))
        yield from self._audit_miners(sealed, block_hash)
        measure = self._measure(self.epoch + 1)
        yield from self._contained(measure, "the held-out loss", lambda reason: None)
        self.expires = False
        yield jobs.Settle()
        self._history.audited.add(self.epoch)
        self._emit(effects.KeepAudited(self.epoch))
        self._emit(Say(AuditsDone(epoch=self.epoch)))

    def _file_broken(self, broken: RecordBroken) -> Script[None]:
        """Nothing can be audited: file that for every miner, since every draw needs a verdict."""
        self.expires = False
        self._log(f"cannot be audited: {broken}", error=True)
        if broken.miners is None:
            self._log("there is no record to name its miners by", error=True)
            return
        self._repeat_filed()
        for miner in broken.miners:
            seq = miner.first_receipt
            self._file(miner.hotkey, seal_task(seq), inconclusive(seq, str(broken)[:_REASON_CHARS]))
        yield jobs.Settle()
        self._emit(Say(AuditsDone(epoch=self.epoch)))

    # ---- audits --------------------------------------------------------------------------------

    def _audit_miners(self, sealed: SealedEpoch, block_hash: str) -> Script[None]:
        """Every drawn audit that is not filed yet. At the deadline the rest is inconclusive."""
        self._repeat_filed()
        # By stage, so that each base is fetched once.
        miners = sorted(sealed.miners, key=lambda hotkey: (sealed.miners[hotkey].stage, hotkey))
        todo = {
            miner: [
                task
                for task in drawn_tasks(sealed, block_hash, self._link, miner)
                if (self.epoch, miner, task.name) not in self._history.filed
            ]
            for miner in miners
        }
        for miner, tasks in todo.items():
            for task in tasks:
                self.snapshots.ask(miner, needed_versions(sealed, miner, task))
        try:
            for miner, tasks in todo.items():
                yield from self._audit_miner(sealed, miner, tasks)
        except Expired:
            for miner, tasks in todo.items():
                for task in tasks:
                    self._file_undecided(miner, task, "not done before the deadline")

    def _audit_miner(self, sealed: SealedEpoch, miner: str, tasks: list[AuditTask]) -> Script[None]:
        self.activity = f"epoch {self.epoch}: auditing {miner}"
        checks = self._check_records(sealed, miner)
        yield from self._contained(checks, f"the receipts of {miner}", lambda reason: None)
        for task in tasks:
            self.activity = f"epoch {self.epoch}: auditing {miner}, {task.name}"
            yield from self._contained(
                self._audit(sealed, miner, task),
                f"{task.name} of {miner}",
                partial(self._file_undecided, miner, task),
            )

    def _check_records(self, sealed: SealedEpoch, miner: str) -> Script[None]:
        stage = sealed.miners[miner].stage
        try:
            digest: str = yield jobs.HashBase(Base(self.epoch, stage, sealed.base(stage)))
        except TransportFailed as error:
            self._log(f"the receipts of {miner} were not checked: {error}")
        except EvidenceMissing:
            self._file_undrawn(stalled_step(sealed, miner, ""))
        else:
            self._file_undrawn(stalled_step(sealed, miner, digest))

    def _audit(self, sealed: SealedEpoch, miner: str, task: AuditTask) -> Script[None]:
        audit = Audit(sealed, miner, task, self.snapshots)
        self._file(miner, task, (yield from audit.run()))
        for fault in reversed(audit.faults):
            self._file_undrawn(fault)

    def _repeat_filed(self) -> None:
        """Report verdicts that an earlier process filed: it may have ended before they arrived."""
        if any(epoch == self.epoch for epoch, _, _ in self._history.filed):
            self._emit(effects.RepeatVerdicts(self.epoch))

    def _file_undrawn(self, fault: MinerFault | None) -> None:
        """File a fault that no draw asked for: the records themselves prove it."""
        if fault is not None:
            self._file(fault.hotkey, records_task(fault.seq), result_of(fault, fault.seq))

    def _file_undecided(self, miner: str, task: AuditTask, reason: str) -> None:
        self._file(miner, task, inconclusive(task.seq, reason))

    def _file(self, miner: str, task: AuditTask, result: Result) -> None:
        """File a verdict, unless one of its name is filed already."""
        name = (self.epoch, miner, task.name)
        if name not in self._history.filed:
            self._history.filed.add(name)
            self._emit(effects.FileVerdict(self.epoch, miner, task, result))

    # ---- held-out loss -------------------------------------------------------------------------

    def _measure(self, epoch: int) -> Script[None]:
        """Measure and report the held-out loss of the base of `epoch`, once that is stored."""
        self.activity = f"held-out loss of the base of epoch {epoch}"
        known = self._history.heldout
        if epoch not in known:
            try:
                if not self.expires:
                    raise Expired
                report: Heldout | None = yield jobs.MeasureHeldout(epoch)
            except Expired:
                self._emit(Log(f"epoch {epoch}: its base was not measured before the deadline"))
                return
            except (EvidenceMissing, TransportFailed) as error:
                self._emit(Log(f"epoch {epoch}: its base cannot be measured: {error}"))
                return
            if report is None:
                self._emit(Log("the data holds out less than one batch: there is no held-out loss"))
                return
            known[epoch] = report
            self._emit(effects.KeepHeldout(report))
        self._emit(Say(known[epoch]))

    def _contained(self, script: Script[_T], what: str, otherwise: Callable[[str], _T]) -> Script[_T]:
        return contained(script, self.epoch, what, otherwise, self._emit)

    def _log(self, text: str, *, error: bool = False) -> None:
        self._emit(Log(f"epoch {self.epoch}: {text}", error))
