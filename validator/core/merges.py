"""Audits of an epoch's merges: drawn parts are merged again, and one stage's next base is made again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Final

from iota.protocol.merges import LeftOut, merge_output
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind, Receipt
from iota.protocol.records import LeftOutRecord
from validator.core import jobs
from validator.core.draw import choose_parts, draw
from validator.core.facts import TransportFailed
from validator.core.jobs import Base, Remade, Script
from validator.core.results import EvidenceMissing, Result, inconclusive
from validator.core.sealed import SealedEpoch
from validator.core.tasks import AuditTask

_SUBJECT: Final = "merges"
"""Stands in the draw where that of a miner's audits has the miner."""
_PROFILE: Final = "exact"
At = tuple[int, int]
"""(stage, part)"""


class MergeAudits:
    """The audits of one epoch's merges. They need public objects alone, and compare to the bit.

    A drawn part is judged at each of its mergers, by what they signed. Whoever the record accuses of a bad
    pseudo-gradient is judged by a part that leaves it out, drawn or not.
    """

    def __init__(
        self,
        sealed: SealedEpoch,
        block_hash: str,
        link: str,
        file: Callable[[str, AuditTask, Result], None],
        warn: Callable[[str], None],
    ) -> None:
        self._sealed, self._file, self._warn = sealed, file, warn
        self._assigns = {(a.stage, a.part): a for a in sealed.record.merge_assigns}
        self._ready = {merge.stage: merge for merge in sealed.record.merges}
        drawn = draw(sealed.spec.id, block_hash, link, sealed.epoch, _SUBJECT)
        self.drawn = choose_parts(drawn, sealed.spec.audit.merge_every, sorted(self._assigns))
        self._receipts: dict[At, list[tuple[str, Receipt]]] = defaultdict(list)
        for hotkey in sorted(sealed.receipts):
            for receipt in sealed.receipts[hotkey]:
                if receipt.kind is OpKind.MERGE:
                    self._receipts[receipt.stage, receipt.microbatch].append((hotkey, receipt))
        self._accused: dict[At, list[LeftOutRecord]] = defaultdict(list)
        for accused in sealed.record.left_out:
            if accused.why is not LeftOut.MISSING and accused.parts:
                self._accused[accused.stage, accused.parts[0]].append(accused)
        self._done: set[At] = set()

    @property
    def parts(self) -> list[At]:
        """The parts to merge again, in order."""
        return sorted({*self.drawn, *self._accused} & self._assigns.keys())

    def tasks(self, at: At) -> list[tuple[str, AuditTask]]:
        """The (hotkey, task) that merging a part again decides."""
        stage, part = at
        merged = [
            (hotkey, AuditTask(AuditKind.MERGE, f"merge:{stage}:{part}", receipt.seq))
            for hotkey, receipt in self._receipts[at]
        ]
        return merged + [(accused.miner, self._accusation(accused)) for accused in self._accused[at]]

    def base_tasks(self) -> list[tuple[str, AuditTask]]:
        """The (hotkey, task) that making the next base again decides."""
        record = self._sealed.next_base(self.drawn[0][0]) if self.drawn else None
        if record is None:
            return []
        task = AuditTask(AuditKind.MERGE, f"base:{record.stage}", 0)
        return [(maker, task) for maker in record.makers]

    def run(self) -> Script[None]:
        """Merge the parts again, and file what comes of it."""
        for at in self.parts:
            assign = self._assigns[at]
            absent = frozenset(h for h, why in self._left_out(at).items() if why is LeftOut.MISSING)
            try:
                remade: Remade = yield jobs.ReplayMerge(assign, absent)
            except EvidenceMissing as error:
                self._give_up(at, str(error))
            except TransportFailed as error:
                self._give_up(at, f"evidence cannot be fetched: {error}")
            else:
                self._judge(at, remade)
            self._done.add(at)

    def give_up(self, reason: str) -> None:
        """What is not merged again yet is not decided, for `reason`."""
        for at in self.parts:
            if at not in self._done:
                self._give_up(at, reason)

    def check_base(self) -> Script[None]:
        """Make the next base of the first drawn part's stage again, and judge those who made it."""
        if not self.drawn:
            return
        stage = self.drawn[0][0]
        base = Base(self._sealed.epoch, stage, self._sealed.base(stage))
        record = self._sealed.next_base(stage)
        if record is None:
            self._warn(f"no base of stage {stage} is recorded that follows")
            return
        merged = self._ready[stage].parts
        digest: str = yield jobs.RemakeBase(base, merged)
        if digest != record.digest:
            self._warn(f"the base of stage {stage} that follows is not what base and merge give")
        for maker, task in self.base_tasks():
            self._file(maker, task, _compared(0, digest, record.digest, f"the base of stage {stage} it made"))

    def _judge(self, at: At, remade: Remade) -> None:
        stage, part = at
        output, what = merge_output(remade.digest, remade.left_out), f"part {part} of stage {stage} it merged"
        receipts = {hotkey: receipt for hotkey, receipt in self._receipts[at]}
        for hotkey, task in self.tasks(at):
            if task.name.startswith("merge:"):
                self._file(hotkey, task, _compared(task.seq, output, receipts[hotkey].output, what))
        for accused in self._accused[at]:
            if remade.left_out.get(accused.miner) is accused.why:
                reason = f"its pseudo-gradient is left out of the merge of stage {stage}: {accused.why.value}"
                found = f"part {part}"
                result = Result(Outcome.FAIL, accused.parts[0], _PROFILE, "", found, reason)
                self._file(accused.miner, self._accusation(accused), result)
        agreed = self._ready[stage].parts[part]
        if (agreed.digest, self._left_out(at)) != (remade.digest, remade.left_out):
            maker = agreed.key.rpartition(".")[2]
            who = "its mergers" if maker in receipts else "the orchestrator"
            self._warn(f"part {part} of stage {stage} is not what its contributions give: {who} made it")

    def _give_up(self, at: At, reason: str) -> None:
        for hotkey, task in self.tasks(at):
            self._file(hotkey, task, inconclusive(task.seq, reason))

    def _left_out(self, at: At) -> dict[str, LeftOut]:
        """What the record says that a part leaves out."""
        stage, part = at
        found = [r for r in self._sealed.record.left_out if r.stage == stage and part in r.parts]
        return {accused.miner: accused.why for accused in found}

    def _accusation(self, accused: LeftOutRecord) -> AuditTask:
        """The task of a pseudo-gradient that is left out. Its seq is the maker's first of the epoch."""
        miner = self._sealed.miners[accused.miner]
        return AuditTask(AuditKind.MERGE, f"left_out:{accused.why.value}", miner.first_receipt)


def _compared(seq: int, expected: str, found: str, what: str) -> Result:
    """The result of comparing two digests."""
    if expected == found:
        return Result(Outcome.PASS, seq, _PROFILE)
    return Result(Outcome.FAIL, seq, _PROFILE, expected, found, f"{what} is not what its inputs give")
