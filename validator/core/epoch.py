"""One sealed epoch, from its draw to its last verdict. Every drawn audit is filed once, by the deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from iota.protocol.events import EpochClose
from iota.protocol.messages import AuditsDone, Heldout, Reveal
from iota.spec import RunSpec
from validator.core import effects, jobs
from validator.core.audit import Audit, needed_versions
from validator.core.effects import Effect, Log, Say
from validator.core.facts import Expired, RecordBroken, RecordGone, TransportFailed
from validator.core.history import History
from validator.core.jobs import Base, Script
from validator.core.merges import MergeAudits
from validator.core.receipt_checks import stalled_step
from validator.core.results import EvidenceMissing, MinerFault, Result, inconclusive, result_of
from validator.core.sealed import SealedEpoch
from validator.core.snapshots import Snapshots
from validator.core.tasks import AuditTask, drawn_tasks, epoch_work, records_task, seal_task

_REASON_CHARS: Final = 300
"""Length to which a broken seal's error is cut in a verdict."""


class EpochAudit:
    """All audits of one epoch, as a script."""

    def __init__(
        self, spec: RunSpec, seal: EpochClose, link: str, history: History, emit: Callable[[Effect], None]
    ) -> None:
        self.epoch = seal.epoch
        self._spec, self._seal, self._link, self._history, self._emit = spec, seal, link, history, emit
        self.snapshots = Snapshots(self.epoch, emit)
        self.expires = True
        """Whether Expired may be thrown into the script now. It is thrown once at most."""
        self.activity = f"epoch {self.epoch}: fetching its record"

    def script(self) -> Script[None]:
        """From the sealed record to the report that all audits are done.

        The link is revealed only with the record at hand and block B final, so that the record cannot be made
        for the draw.
        """
        try:
            sealed = yield from self._fetch()
            if sealed is None:
                return
            self.activity = f"epoch {self.epoch}: waiting for block {self._seal.block}"
            block_hash: str = yield jobs.AwaitBlock(self._seal.block)
            self._emit(Say(Reveal(epoch=self.epoch, link=self._link)))
            # The coordinator refuses verdicts and requests of a validator that has not revealed its link.
            yield jobs.Settle()
        except Expired:
            self._log("no draw before the deadline, so no audits", error=True)
            return
        if isinstance(sealed, RecordBroken):
            yield from self._file_broken(sealed)
            return
        self._emit(effects.KeepWork(epoch_work(sealed)))
        merges = MergeAudits(
            sealed, block_hash, self._link, self._file, lambda text: self._log(text, error=True)
        )
        yield from self._audit_miners(sealed, block_hash, merges)
        yield from self._measure(self.epoch + 1)
        yield from self._check_base(merges)
        self.expires = False
        yield jobs.Settle()
        self._history.audited.add(self.epoch)
        self._emit(effects.KeepAudited(self.epoch))
        self._emit(Say(AuditsDone(epoch=self.epoch)))

    def _fetch(self) -> Script[SealedEpoch | RecordBroken | None]:
        """The sealed epoch, or why it cannot be audited; None where the sealed record is not to be had."""
        try:
            sealed: SealedEpoch = yield jobs.FetchRecord(self._seal)
        except RecordGone:
            self._log("its audits are closed already")
            return None
        except RecordBroken as broken:
            if broken.miners is not None:
                return broken
            self._log(f"refused, and no link is revealed for it: {broken}", error=True)
            return None
        return sealed

    def _file_broken(self, broken: RecordBroken) -> Script[None]:
        """Nothing can be audited: file that for every miner, since every draw needs a verdict."""
        self.expires = False
        self._log(f"cannot be audited: {broken}", error=True)
        self._repeat_filed()
        for miner in broken.miners or ():
            seq = miner.first_receipt
            self._file(miner.hotkey, seal_task(seq), inconclusive(seq, str(broken)[:_REASON_CHARS]))
        yield jobs.Settle()
        self._emit(Say(AuditsDone(epoch=self.epoch)))

    # ---- audits --------------------------------------------------------------------------------

    def _audit_miners(self, sealed: SealedEpoch, block_hash: str, merges: MergeAudits) -> Script[None]:
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
        for fault in sealed.faults:
            self._file_undrawn(fault)
        for miner, tasks in todo.items():
            for task in tasks:
                self.snapshots.ask(miner, needed_versions(sealed, miner, task))
        try:
            for miner, tasks in todo.items():
                yield from self._audit_miner(sealed, miner, tasks)
            self.activity = f"epoch {self.epoch}: auditing its merges"
            yield from merges.run()
        except Expired:
            merges.expire()
            for miner, tasks in todo.items():
                for task in tasks:
                    self._file(miner, task, inconclusive(task.seq, "not done before the deadline"))

    def _audit_miner(self, sealed: SealedEpoch, miner: str, tasks: list[AuditTask]) -> Script[None]:
        self.activity = f"epoch {self.epoch}: auditing {miner}"
        stage = sealed.miners[miner].stage
        try:
            digest: str = yield jobs.HashBase(Base(self.epoch, stage, sealed.base(stage)))
        except TransportFailed as error:
            self._log(f"the receipts of {miner} were not checked: {error}")
        except EvidenceMissing:
            self._file_undrawn(stalled_step(sealed, miner, ""))
        else:
            self._file_undrawn(stalled_step(sealed, miner, digest))
        for task in tasks:
            self.activity = f"epoch {self.epoch}: auditing {miner}, {task.name}"
            audit = Audit(sealed, miner, task, self.snapshots)
            self._file(miner, task, (yield from audit.run()))

    def _repeat_filed(self) -> None:
        """Report verdicts that an earlier process filed: it may have ended before they arrived."""
        if any(epoch == self.epoch for epoch, _, _ in self._history.filed):
            self._emit(effects.RepeatVerdicts(self.epoch))

    def _file_undrawn(self, fault: MinerFault | None) -> None:
        """File a fault that no draw asked for: the records themselves prove it."""
        if fault is not None:
            self._file(fault.hotkey, records_task(fault.seq), result_of(fault, fault.seq))

    def _file(self, miner: str, task: AuditTask, result: Result) -> None:
        """File a verdict, unless one of its name is filed already."""
        name = (self.epoch, miner, task.name)
        if name not in self._history.filed:
            self._history.filed.add(name)
            self._emit(effects.FileVerdict(self.epoch, miner, task, result))

    # ---- the next base -------------------------------------------------------------------------

    def _check_base(self, merges: MergeAudits) -> Script[None]:
        """Make a stage's next base again, if there is time for it."""
        self.activity = f"epoch {self.epoch}: auditing the base that follows"
        try:
            if not self.expires:
                raise Expired
            yield from merges.check_base()
        except Expired:
            self._log("the base that follows was not made again before the deadline")
        except (EvidenceMissing, TransportFailed) as error:
            self._log(f"the base that follows cannot be made again: {error}")

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

    def _log(self, text: str, *, error: bool = False) -> None:
        self._emit(Log(f"epoch {self.epoch}: {text}", error))
