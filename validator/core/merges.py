"""Audits of an epoch's merges: drawn parts are merged again, and one stage's next base is made again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Final

from iota.objects import SettledKey, parse_key
from iota.protocol.merges import LeftOut, merge_output
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind, Receipt
from iota.protocol.records import BaseRecord, LeftOutRecord
from validator.core import jobs
from validator.core.draw import choose_at_most, choose_parts, draw
from validator.core.facts import TransportFailed
from validator.core.jobs import Base, Remade, Script
from validator.core.results import EvidenceMissing, Result, inconclusive
from validator.core.sealed import SealedEpoch
from validator.core.tasks import AuditTask, make_task

_SUBJECT: Final = "merges"
"""Stands in the draw where that of a miner's audits has the miner."""
MAX_CONTESTED: Final = 4
"""Parts of an epoch that are merged again because one merger signed something else than was agreed on. The
draw decides which. One that is wrong is a fail, so the others cost only time."""
_PROFILE: Final = "exact"
At = tuple[int, int]
"""(stage, part)"""


class MergeAudits:
    """The audits of one epoch's merges. They need public objects alone, and compare to the bit.

    A part is judged at each of its mergers, by what they signed: a drawn one, and of each merger
    `MAX_CONTESTED` of those where it signed something else than was agreed on. Whoever the record accuses of
    a bad pseudo-gradient is judged by a part that leaves it out.
    """

    def __init__(
        self,
        sealed: SealedEpoch,
        block_hash: str,
        link: str,
        file: Callable[[str, AuditTask, Result], None],
        warn: Callable[[str], None],
    ) -> None:
        self._sealed, self._filer, self._warn = sealed, file, warn
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
        self._contested = self._choose_contested(block_hash, link)
        self._done: set[At] = set()
        self._outcomes: dict[tuple[str, AuditTask], Outcome] = {}

    @property
    def parts(self) -> list[At]:
        """The parts to merge again, in order."""
        return sorted({*self.drawn, *self._accused, *self._contested} & self._assigns.keys())

    def tasks(self, at: At) -> list[tuple[str, AuditTask]]:
        """The (hotkey, task) that merging a part again decides."""
        merged = [(hotkey, make_task(AuditKind.MERGE, receipt.seq)) for hotkey, receipt in self._receipts[at]]
        return merged + [(accused.miner, _accusation(accused)) for accused in self._charged(at)]

    def _charged(self, at: At) -> list[LeftOutRecord]:
        """Who is judged by this part. To go against the others is no fault; mergers are judged even so."""
        return [accused for accused in self._accused[at] if not accused.why.is_sound]

    def base_tasks(self) -> list[tuple[str, AuditTask]]:
        """The (hotkey, task) that making the next base again decides."""
        record = self._sealed.next_base(self.drawn[0][0]) if self.drawn else None
        if record is None:
            return []
        return _makers(record)

    def run(self) -> Script[None]:
        """Merge the parts again, and file what comes of it."""
        for at in self.parts:
            yield from self._merge_again(at)

    def examine(self, miner: str, kind: AuditKind, seq: int) -> Script[Outcome | None]:
        """Re-execute what another validator names, and file it. None if the miner has no such work."""
        task = make_task(kind, seq)
        if kind is AuditKind.BASE:
            yield from self._examine_base(miner, task)
        else:
            at = next((at for at in sorted(self._receipts) if (miner, task) in self.tasks(at)), None)
            if at in self._assigns and at not in self._done:
                yield from self._merge_again(at)
        return self._outcomes.get((miner, task))

    def _examine_base(self, miner: str, task: AuditTask) -> Script[None]:
        record = self._sealed.next_base(task.seq)
        if record is None or miner not in record.makers:
            return
        try:
            yield from self._make_base(task.seq)
        except (EvidenceMissing, TransportFailed) as error:
            self._file(miner, task, inconclusive(task.seq, f"it cannot be made again: {error}"))

    def _merge_again(self, at: At) -> Script[None]:
        try:
            remade: Remade = yield jobs.ReplayMerge(self._assigns[at], self._absent(at))
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
        if self.drawn:
            yield from self._make_base(self.drawn[0][0])

    def _make_base(self, stage: int) -> Script[None]:
        base = Base(self._sealed.epoch, stage, self._sealed.base(stage))
        record = self._sealed.next_base(stage)
        if record is None:
            self._warn(f"no base of stage {stage} is recorded that follows")
            return
        merged = self._ready[stage].parts
        digest: str = yield jobs.RemakeBase(base, merged)
        if digest != record.digest:
            self._warn(f"the base of stage {stage} that follows is not what base and merge give")
        for maker, task in _makers(record):
            self._file(
                maker, task, _compared(stage, digest, record.digest, f"the base of stage {stage} it made")
            )

    def _judge(self, at: At, remade: Remade) -> None:
        stage, part = at
        output, what = merge_output(remade.digest, remade.left_out), f"part {part} of stage {stage} it merged"
        receipts = {(hotkey, receipt.seq): receipt for hotkey, receipt in self._receipts[at]}
        absent = self._absent(at)
        for hotkey, task in self.tasks(at):
            if task.kind is not AuditKind.MERGE:
                continue
            result = _compared(task.seq, output, receipts[hotkey, task.seq].output, what)
            if absent and result.outcome is Outcome.FAIL:
                # The store has lost them since, as far as is known: who had them then merged rightly.
                result = inconclusive(task.seq, f"{what} is recorded without {', '.join(sorted(absent))}")
            self._file(hotkey, task, result)
        for accused in self._charged(at):
            if remade.left_out.get(accused.miner) is accused.why:
                reason = f"its pseudo-gradient is left out of the merge of stage {stage}: {accused.why.value}"
                found = f"part {part}"
                result = Result(Outcome.FAIL, accused.parts[0], _PROFILE, "", found, reason)
                self._file(accused.miner, _accusation(accused), result)
        agreed = self._ready[stage].parts[part]
        if (agreed.digest, self._left_out(at)) != (remade.digest, remade.left_out):
            maker = agreed.key.rpartition(".")[2]
            who = "its mergers" if maker in dict(self._receipts[at]) else "the orchestrator"
            self._warn(f"part {part} of stage {stage} is not what its contributions give: {who} made it")

    def _file(self, hotkey: str, task: AuditTask, result: Result) -> None:
        self._outcomes.setdefault((hotkey, task), result.outcome)
        self._filer(hotkey, task, result)

    def _give_up(self, at: At, reason: str) -> None:
        for hotkey, task in self.tasks(at):
            self._file(hotkey, task, inconclusive(task.seq, reason))

    def _absent(self, at: At) -> frozenset[str]:
        """Whose contributions the orchestrator did not find in the store when it merged the part itself."""
        stage, part = at
        agreed = self._ready[stage].parts if stage in self._ready else ()
        if part >= len(agreed) or not isinstance(parse_key(agreed[part].key), SettledKey):
            return frozenset()
        return frozenset(h for h, why in self._left_out(at).items() if why is LeftOut.MISSING)

    def _choose_contested(self, block_hash: str, link: str) -> set[At]:
        """The parts to merge again because of what a merger of theirs signed."""
        contested: dict[str, list[At]] = defaultdict(list)
        for at in sorted(self._receipts):
            agreed = self._agreed(at)
            for hotkey, receipt in self._receipts[at] if agreed is not None else ():
                if receipt.output != agreed:
                    contested[hotkey].append(at)
        sealed, found = self._sealed, set()
        for hotkey, parts in contested.items():
            drawn = draw(sealed.spec.id, block_hash, link, sealed.epoch, f"{_SUBJECT}/{hotkey}")
            found.update(choose_at_most(drawn, MAX_CONTESTED, parts))
        return found

    def _agreed(self, at: At) -> str | None:
        """The output of a MERGE receipt that fits the agreed part. None where there is none that must."""
        stage, part = at
        agreed = self._ready[stage].parts if stage in self._ready else ()
        if part >= len(agreed) or self._absent(at):
            return None
        return merge_output(agreed[part].digest, self._left_out(at))

    def _left_out(self, at: At) -> dict[str, LeftOut]:
        """What the record says that a part leaves out."""
        stage, part = at
        found = [r for r in self._sealed.record.left_out if r.stage == stage and part in r.parts]
        return {accused.miner: accused.why for accused in found}


def _accusation(accused: LeftOutRecord) -> AuditTask:
    """The task of a pseudo-gradient that is left out, by the first part that leaves it out."""
    return make_task(AuditKind.DELTA, accused.parts[0])


def _makers(record: BaseRecord) -> list[tuple[str, AuditTask]]:
    return [(maker, make_task(AuditKind.BASE, record.stage)) for maker in record.makers]


def _compared(seq: int, expected: str, found: str, what: str) -> Result:
    """The result of comparing two digests."""
    if expected == found:
        return Result(Outcome.PASS, seq, _PROFILE)
    return Result(Outcome.FAIL, seq, _PROFILE, expected, found, f"{what} is not what its inputs give")
