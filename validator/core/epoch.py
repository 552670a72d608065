"""One sealed epoch, from its draw to its last verdict. Every drawn audit is filed once, by the deadline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, TypeVar

from iota.protocol.events import EpochClose
from iota.protocol.messages import AuditKind, AuditsDone, Outcome, Reveal
from iota.protocol.records import MinerRecord
from iota.spec import RunSpec
from validator.core import effects, jobs
from validator.core.accusations import Accusations, task_of
from validator.core.audit import Audit, needed_pieces
from validator.core.containment import contained
from validator.core.deliveries import Awaited, Deliveries, Piece
from validator.core.draw import draw
from validator.core.effects import Effect, Log, Say
from validator.core.epoch_before import EpochBefore, check_follows, epoch_before
from validator.core.facts import Expired, RecordBroken, RecordGone, TransportFailed
from validator.core.flags import flagged
from validator.core.heldout import heldout_of
from validator.core.history import History
from validator.core.jobs import Script, Wait
from validator.core.merges import MergeAudits
from validator.core.order import Group, audit_groups
from validator.core.pool import is_narrower
from validator.core.results import EvidenceMissing, Result, inconclusive, result_of
from validator.core.sealed import SealBroken, SealedEpoch
from validator.core.segments import Draws
from validator.core.tasks import (
    MERGE_AUDITS,
    AuditTask,
    drawable,
    drawn_tasks,
    epoch_work,
    named_task,
    owes,
    records_task,
    seal_task,
    task_name,
)

_T = TypeVar("_T")
_Awaiting = tuple[AuditTask, frozenset[Piece]]
"""A drawn audit, and the evidence that it needs of its miner."""
_REASON_CHARS: Final = 300
"""Length to which a broken seal's error is cut in a verdict."""


class EpochAudit:
    """All audits of one epoch, as a script."""

    def __init__(
        self,
        spec: RunSpec,
        seal: EpochClose,
        own: str,
        link: str,
        history: History,
        accusations: Accusations,
        emit: Callable[[Effect], None],
    ) -> None:
        self.epoch = seal.epoch
        self._spec, self._seal, self._own, self._link = spec, seal, own, link
        self._history, self._emit = history, emit
        self._accusations = accusations
        self.deliveries = Deliveries(self.epoch, emit)
        self.expires = True
        """Whether Expired may be thrown into the script now. It is thrown once at most."""
        self.activity = f"epoch {self.epoch}: fetching its record"
        self._miners: tuple[MinerRecord, ...] | None = None
        """Those of the record, once it is at hand and the link is revealed."""
        self._flagged: frozenset[str] = frozenset()
        self._compared: dict[tuple[str, str], str] = {}
        """(miner, task) -> the profile of its own verdict."""

    def script(self) -> Script[None]:
        """From the sealed record to the report that all audits are done.

        The link is revealed only with the record at hand and block B final, so that the record cannot be made
        for the draw.
        """
        failed = yield from self._contained(self._audits(), "its audits", lambda reason: reason)
        if failed is not None and self._miners is None:
            self._log(f"given up before its draw: {failed}", error=True)
        elif failed is not None:
            yield from self._file_broken(RecordBroken(failed, self._miners))

    def _audits(self) -> Script[None]:
        try:
            sealed = yield from self._fetch()
            if sealed is None:
                return
            if isinstance(sealed, SealedEpoch):
                self._history.ended = {self.epoch: epoch_before(sealed)}
                self._flagged = yield from flagged(sealed, self._history, self._emit)
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
        self._miners = sealed.record.miners
        if (measured := heldout_of(sealed)) is not None:
            self._emit(effects.Measured(self.epoch, measured))
        work = epoch_work(sealed)
        self._history.keep_work(self._spec, self.epoch, drawable(sealed, block_hash))
        self._emit(effects.KeepDraw(self.epoch, block_hash))
        self._emit(effects.KeepWork(work))
        merges = self._merges_of(sealed, block_hash)
        yield from self._audit_miners(sealed, block_hash, merges)
        for script, what in (
            (self._examine(sealed, block_hash, merges), "accusations of others"),
            (self._check_base(merges), "the base that follows"),
        ):
            yield from self._contained(script, what, lambda reason: None)
        self.expires = False
        yield jobs.Settle()
        self._history.audited.add(self.epoch)
        self._emit(effects.KeepAudited(self.epoch))
        self.say_done()

    def _fetch(self) -> Script[SealedEpoch | RecordBroken | None]:
        """The sealed epoch, or why it cannot be audited; None where the sealed record is not to be had."""
        try:
            sealed: SealedEpoch = yield jobs.FetchRecord(self._seal)
            before = yield from self._before(sealed)
            if before is not None:
                check_follows(self._spec, sealed.record, before)
        except RecordGone:
            self._log("its audits are closed already")
            return None
        except SealBroken as broken:
            return RecordBroken(str(broken), sealed.record.miners)
        except RecordBroken as broken:
            if broken.miners is not None:
                return broken
            self._log(f"refused, and no link is revealed for it: {broken}", error=True)
            return None
        return sealed

    def _before(self, sealed: SealedEpoch) -> Script[EpochBefore | None]:
        """What the epoch may begin with. Where this process has not read the record that says it, it is
        fetched if the epoch has own starts, and else None.

        Raises RecordBroken where it cannot be had: nobody can be held to an own start by one record.
        """
        if self.epoch == 0:
            return EpochBefore()
        known = self._history.ended.get(self.epoch - 1)
        if known is not None or not any(life.began for miner in sealed.record.miners for life in miner.lives):
            return known
        try:
            _, past = yield jobs.FetchPast(self.epoch - 1)
        except (EvidenceMissing, TransportFailed) as error:
            reason = f"the record of epoch {self.epoch - 1}, which it follows, is not to be had: {error}"
            raise RecordBroken(reason, sealed.record.miners) from error
        return epoch_before(past)

    def say_done(self) -> None:
        """Report that the verdicts of the epoch are filed, and that what was heard of others is examined."""
        self._emit(Say(AuditsDone(epoch=self.epoch, accusations=self._accusations.settled)))

    def _file_broken(self, broken: RecordBroken) -> Script[None]:
        """Nothing can be audited: file that for every miner, since every draw needs a verdict."""
        self.expires = False
        self._log(f"cannot be audited: {broken}", error=True)
        self._repeat_filed()
        for miner in broken.miners or ():
            seq = miner.first_receipt
            self._file(miner.hotkey, seal_task(seq), inconclusive(seq, str(broken)[:_REASON_CHARS]))
        yield jobs.Settle()
        self.say_done()

    # ---- audits --------------------------------------------------------------------------------

    def _audit_miners(self, sealed: SealedEpoch, block_hash: str, merges: MergeAudits) -> Script[None]:
        """Every drawn audit that is not filed yet. At the deadline the rest is inconclusive."""
        self._repeat_filed()
        owed = {miner for epoch, miner in self._history.owing if epoch == self.epoch - 1}
        groups = audit_groups(sealed, block_hash, self._link, owed, self._flagged)
        draws = Draws(block_hash, self._link, self._own, self._history.drawable)
        drawn = {
            miner: [
                task
                for task in drawn_tasks(sealed, draws, miner, owed=miner in owed)
                if (self.epoch, miner, task.name) not in self._history.filed
            ]
            for miner in groups
        }
        for fault in sealed.faults:
            self._file(fault.hotkey, records_task(fault.seq), result_of(fault, fault.seq))
        todo: dict[str, list[_Awaiting]] = {}
        for miner, tasks in drawn.items():
            todo[miner] = [(task, frozenset(needed_pieces(sealed, miner, task))) for task in tasks]
            for _, pieces in todo[miner]:
                self.deliveries.ask(miner, pieces)
        try:
            yield from self._audit_ready(sealed, groups, todo)
            self.activity = f"epoch {self.epoch}: auditing its merges"
            yield from self._contained(merges.run(), "its merges", merges.give_up)
            while any(todo.values()):
                if not any(self._is_ready(miner, tasks) for miner, tasks in todo.items()):
                    yield Wait()
                yield from self._audit_ready(sealed, groups, todo)
        except Expired:
            merges.give_up("not done before the deadline")
            for miner, tasks in drawn.items():
                for task in tasks:
                    self._file_undecided(miner, task, "not done before the deadline")

    def _is_ready(self, miner: str, tasks: list[_Awaiting]) -> bool:
        """Whether one of a miner's audits waits for no evidence."""
        awaited = self.deliveries.awaited(miner)
        return any(awaited.isdisjoint(pieces) for _, pieces in tasks)

    def _audit_ready(
        self, sealed: SealedEpoch, groups: Mapping[str, Group], todo: dict[str, list[_Awaiting]]
    ) -> Script[None]:
        """Do the audits in `todo` that wait for no snapshot, group by group; the others are left there.

        So who is slow to store, or says nothing, keeps nobody else from being audited.
        """
        group = None
        while True:
            beside = (m for m in todo if groups[m] == group and self._is_ready(m, todo[m]))
            ready = (m for m in todo if self._is_ready(m, todo[m]))
            miner = next(beside, None) or next(ready, None)
            if miner is None:
                return
            group = groups[miner]
            todo[miner] = yield from self._audit_miner(sealed, miner, todo[miner])

    def _audit_miner(
        self, sealed: SealedEpoch, miner: str, tasks: list[_Awaiting]
    ) -> Script[list[_Awaiting]]:
        """A miner's audits. Answers those that wait for evidence."""
        self.activity = f"epoch {self.epoch}: auditing {miner}"
        left = []
        for task, pieces in tasks:
            if not self.deliveries.awaited(miner).isdisjoint(pieces):
                left.append((task, pieces))
            elif (yield from self._audit(sealed, miner, task)) is None:
                left.append((task, self.deliveries.awaited(miner)))
        return left

    def _audit(
        self, sealed: SealedEpoch, miner: str, task: AuditTask, *, drawn: bool = True
    ) -> Script[set[str] | None]:
        """Audit a task and file what comes out. Answers who was found to be at fault; empty if all agrees.

        An audit that decides nothing counts its miner among them, since it clears nobody. One that was not
        `drawn` costs the miner nothing where evidence is gone: an accuser would choose what the store lost.
        Of a segment that is filed, and counts where some validator's draw demands it (`pool.py`).
        One that was, and needs evidence that is not decided, answers None: it is to begin again.
        """
        self.activity = f"epoch {self.epoch}: auditing {miner}, {task.name}"
        undecided = partial(self._file_undecided, miner, task)
        return self._contained(self._decide(sealed, miner, task, drawn), f"{task.name} of {miner}", undecided)

    def _decide(
        self, sealed: SealedEpoch, miner: str, task: AuditTask, drawn: bool
    ) -> Script[set[str] | None]:
        try:
            result: Result = yield from Audit(sealed, miner, task, self.deliveries).run()
        except Awaited:
            if drawn:
                return None
            while self.deliveries.awaited(miner):
                yield Wait()
            return (yield from self._decide(sealed, miner, task, drawn))
        if result.outcome is Outcome.UNSHOWN and not drawn and task.kind is not AuditKind.SEGMENT:
            result = inconclusive(result.seq, result.reason)
        self._file(miner, task, result)
        return set() if result.outcome is Outcome.PASS else {miner}

    # ---- accusations of others -----------------------------------------------------------------

    def examination(self) -> Script[None]:
        """Examine accusations that came after all verdicts of the epoch were filed."""
        self.activity = f"epoch {self.epoch}: examining accusations"
        yield from self._contained(self._examine_later(), "accusations of others", lambda reason: None)
        self._accusations.pass_over()
        self.expires = False
        yield jobs.Settle()
        self.say_done()

    def _examine_later(self) -> Script[None]:
        try:
            sealed: SealedEpoch = yield jobs.FetchRecord(self._seal)
            block_hash: str = yield jobs.AwaitBlock(self._seal.block)
        except (Expired, RecordGone, RecordBroken) as error:
            self._log(f"accusations of other validators are not examined: {error}")
            return
        yield from self._examine(sealed, block_hash, self._merges_of(sealed, block_hash))

    def _merges_of(self, sealed: SealedEpoch, block_hash: str) -> MergeAudits:
        warn = partial(self._log, error=True)
        return MergeAudits(sealed, block_hash, self._link, self._file, warn)

    def _examine(self, sealed: SealedEpoch, block_hash: str, merges: MergeAudits) -> Script[None]:
        """Re-execute what others accuse miners of, within a cap. The own verdicts then say what is so."""
        seed = draw(self._spec.id, block_hash, self._link, self.epoch, "accusations")
        try:
            if not self.expires:
                raise Expired
            for accusation in self._accusations.to_examine(seed):
                miner, name = task_of(accusation)
                kind, seq = accusation.verdict.audit, accusation.verdict.seq
                if (self.epoch, miner, name) in self._history.filed:
                    continue
                outcome = yield from self._re_execute(sealed, merges, miner, kind, seq)
                narrower = is_narrower(
                    kind, accusation.verdict.profile, self._compared.get((miner, name), "")
                )
                if outcome is Outcome.PASS and accusation.verdict.outcome is Outcome.FAIL and not narrower:
                    self._accusations.refute(accusation.validator)
        except Expired:
            self._log("not all accusations of other validators were examined before the deadline")

    def _re_execute(
        self, sealed: SealedEpoch, merges: MergeAudits, miner: str, kind: AuditKind, seq: int
    ) -> Script[Outcome | None]:
        """What comes out of the audit that another validator names; None if the miner has no such work."""
        if kind in MERGE_AUDITS:
            what = f"{task_name(kind, seq)} of {miner}"
            self.activity = f"epoch {self.epoch}: examining {what}"
            return (yield from self._contained(merges.examine(miner, kind, seq), what, lambda reason: None))
        task = named_task(sealed, miner, kind, seq)
        if task is None:
            return None
        self.deliveries.ask(miner, needed_pieces(sealed, miner, task))
        found = yield from self._audit(sealed, miner, task, drawn=False)
        return Outcome.FAIL if found else Outcome.PASS

    def _repeat_filed(self) -> None:
        """Report verdicts that an earlier process filed: it may have ended before they arrived."""
        if any(epoch == self.epoch for epoch, _, _ in self._history.filed):
            self._emit(effects.RepeatVerdicts(self.epoch))

    def _file_undecided(self, miner: str, task: AuditTask, reason: str) -> set[str]:
        self._file(miner, task, inconclusive(task.seq, reason))
        return {miner}

    def _file(self, miner: str, task: AuditTask, result: Result) -> None:
        """File a verdict, unless one of its name is filed already."""
        name = (self.epoch, miner, task.name)
        if name in self._history.filed:
            return
        self._history.filed.add(name)
        self._compared[miner, task.name] = result.profile
        if owes(task.kind, result.outcome):
            self._history.owing.add((self.epoch, miner))
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

    def _contained(self, script: Script[_T], what: str, otherwise: Callable[[str], _T]) -> Script[_T]:
        return contained(script, self.epoch, what, otherwise, self._emit)

    def _log(self, text: str, *, error: bool = False) -> None:
        self._emit(Log(f"epoch {self.epoch}: {text}", error))
