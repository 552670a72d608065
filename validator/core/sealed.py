"""One sealed epoch from public records: its receipts, checked, and which work was assigned and settled."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter

from iota.protocol.frames import StoredObject
from iota.protocol.merkle import EMPTY, merkle_root
from iota.protocol.plans import WholePlan
from iota.protocol.receipts import (
    OpKey,
    OpKind,
    Receipt,
    counted_digest,
)
from iota.protocol.records import BaseRecord, EpochRecord, LifeRecord, Word
from iota.spec import RunSpec
from validator.core.merge_records import merges_fault
from validator.core.record_checks import SealBroken, check_lives, check_owner
from validator.core.results import MinerFault
from validator.core.signed_words import signed_words

__all__ = ["SealBroken", "SealedEpoch", "Segment", "stage_ops"]


def stage_ops(stage: int, stages: int) -> frozenset[OpKind]:
    """The ops on a microbatch that a stage has: drawn and paid one by one.

    A receipt of any other kind is of no op: the engine of the stage could not run it.
    """
    if stage == stages - 1:
        return frozenset({OpKind.LOSS, OpKind.EVAL})
    return frozenset({OpKind.FORWARD, OpKind.BACKWARD})


@dataclass(frozen=True)
class Segment:
    """What a miner did between two consecutive commitments of its last life."""

    first: int
    """The version that it starts from."""
    last: int
    """The version that it ends at: its STEPs are `first` to `last` - 1."""
    seq: int
    """Of the COMMIT at its end."""


class SealedEpoch:
    """An epoch's record, which `check_record` takes, its plans and all its receipts.

    Of a miner's lives only the last one's states can be shown: those of an earlier one were lost. So it has
    no segments, and of its ops those are audited that used the base.

    Raises SealBroken if the seal does not cover the receipts, the plans are not those of the record, or a
    miner's certificate does not give it the owner that the record names.
    """

    faults: Sequence[MinerFault] = ()
    """What `check_receipts` found; whoever fetches the record sets it."""

    def __init__(
        self,
        spec: RunSpec,
        record: EpochRecord,
        plans: Sequence[WholePlan],
        receipts: Mapping[str, Sequence[Receipt]],
        *,
        part: bool = False,
    ) -> None:
        """`part`: the receipts are those of some miners alone; the record's roots stand for the others'."""
        self.spec, self.record, self.epoch = spec, record, record.epoch
        self.receipts = {hotkey: tuple(given) for hotkey, given in receipts.items()}
        chains = {hotkey: receipts[hotkey] for hotkey in sorted(receipts) if receipts[hotkey]}
        roots = {h: merkle_root([r.content_digest() for r in chain]) for h, chain in chains.items()}
        count = record.receipts if part else sum(map(len, chains.values()))
        for miner in record.miners if part else ():
            if miner.hotkey not in receipts and miner.receipts != EMPTY:
                roots[miner.hotkey] = miner.receipts
        sealed = (record.receipts, record.root, {m.hotkey: m.receipts for m in record.miners})
        every = {m.hotkey: roots.get(m.hotkey, EMPTY) for m in record.miners}
        if (count, merkle_root([roots[hotkey] for hotkey in sorted(roots)]), every) != sealed:
            raise SealBroken(f"the receipts of epoch {record.epoch} are not those that were sealed")
        if [(plan.step, plan.root()) for plan in plans] != [(p.step, p.root) for p in record.plans]:
            raise SealBroken(f"the plans of epoch {record.epoch} are not those of its record")
        check_lives(record)
        if fault := merges_fault(spec, record):
            raise SealBroken(f"the merges of epoch {record.epoch}: {fault}")
        self.miners = {miner.hotkey: miner for miner in record.miners}
        for miner in record.miners:
            check_owner(spec.id, miner)
        self._plans = {plan.step: plan for plan in plans}
        self._assigned = self._assignments()
        self._backward_only = {
            (r.step, r.microbatch, r.attempt, r.stage) for r in record.reroutes if not r.send_forward
        }
        self._forward_again: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        for event in record.reroutes:
            if event.send_forward:
                self._forward_again[event.step, event.microbatch, event.stage].append(event.attempt)
        self._counted = {(c.miner, c.step): c.counted for c in record.counted}
        self._counting = self._counting_attempts()
        self._heldout = {
            (done.microbatch, stage): attempt
            for done in record.heldout
            for stage, attempt in enumerate(done.attempts)
        }
        self._settled = self._settlements()
        self._gave = {delta.miner for delta in record.deltas}
        self._words = signed_words(spec, record.epoch, self.miners, record.words)
        self._by_name: dict[str, dict[OpKey, Receipt]] = {}
        for hotkey, given in self.receipts.items():
            named = self._by_name.setdefault(hotkey, {})
            for receipt in given:
                named.setdefault(receipt.key, receipt)
        self._segments: dict[str, tuple[Segment, ...]] = {}
        self._commits: dict[str, dict[LifeRecord, dict[int, Receipt]]] = {}
        self._ended: Counter[str] = Counter()
        for counted in record.counted:
            self._ended[counted.miner] += len(counted.counted)
        self._check_steps()

    def _check_steps(self) -> None:
        """Raise SealBroken for a STEP that names another list or rate than the record and the plan have.

        The orchestrator took this receipt, so it told its miner what it did not seal.
        """
        for hotkey, given in self.receipts.items():
            for receipt in given:
                update, plan = receipt.update, self._plans.get(receipt.step)
                if receipt.kind is not OpKind.STEP or update is None or plan is None:
                    continue
                told = (update.counted, update.learning_rate)
                if told != (counted_digest(self.counted(hotkey, receipt.step)), plan.learning_rate):
                    raise SealBroken(
                        f"the orchestrator took receipt {receipt.seq} of {hotkey}, a STEP with another"
                        f" counted list or learning rate than the record of epoch {self.epoch} has for it"
                    )

    # ---- work ----------------------------------------------------------------------------------

    def owner_of(self, hotkey: str) -> str:
        """The hotkey that is paid for a miner's work, and banned for it: the miner's own as a rule."""
        return self.miners[hotkey].owner

    def auditable(self, hotkey: str) -> list[Receipt]:
        """Receipts of ops that are paid or counted in a sum, and used the base; each op once.

        An audit of one needs no state of its miner: what lies later is shown by segments.
        """
        return [
            receipt
            for receipt in self._own_ops(hotkey)
            if self._used_base(hotkey, receipt)
            if self._is_paid(receipt)
            or (receipt.microbatch, receipt.attempt) in self.counted(hotkey, receipt.step)
        ]

    def paid(self, hotkey: str) -> list[Receipt]:
        """Receipts of assigned ops of settled microbatches: the work that scores count.

        Each op of a microbatch is paid once at each stage, over all miners: in the attempt that counts. Else
        friends could have work made again and all be paid. Who gave no pseudo-gradient is not paid.
        Nobody is paid for what no audit can show, an earlier life's ops in versions after its base: who lies
        there would lose its states, and be paid.
        """
        if self.withholds(hotkey):
            return []
        return [r for r in self._own_ops(hotkey) if self._is_paid(r) and self._can_be_shown(hotkey, r)]

    def alone(self, hotkey: str, step: int) -> list[Receipt]:
        """Paid FORWARDs and EVALs of a step of the last life whose attempt the miner does not count.

        They are of held-out microbatches, or another attempt went on from their activations: no backward of
        the miner shows anything of them.
        """
        counted, last = self.counted(hotkey, step), self.last_life(hotkey)
        return [
            receipt
            for receipt in self.paid(hotkey)
            if receipt.step == step
            and receipt.kind in (OpKind.FORWARD, OpKind.EVAL)
            and (receipt.microbatch, receipt.attempt) not in counted
            and self.life(hotkey, receipt) is last
        ]

    def withholds(self, hotkey: str) -> bool:
        """Whether the miner gave no pseudo-gradient, though its last life has counted work."""
        steps = range(self.last_life(hotkey).joined, self.spec.schedule.steps)
        return hotkey not in self._gave and any(self.counted(hotkey, step) for step in steps)

    def is_summed(self, hotkey: str, receipt: Receipt) -> bool:
        """Whether the op's weight gradient stands in a sum that the miner has a STEP receipt of."""
        counted = (receipt.microbatch, receipt.attempt) in self.counted(hotkey, receipt.step)
        return counted and self.step_receipt(hotkey, receipt.step) is not None

    def _can_be_shown(self, hotkey: str, receipt: Receipt) -> bool:
        """Whether an audit can replay the op: it used a base, or is in reach of the last life's segments."""
        return self.life(hotkey, receipt) is self.last_life(hotkey) or self._used_base(hotkey, receipt)

    def _used_base(self, hotkey: str, receipt: Receipt) -> bool:
        """Whether an op used the base, which is the version that its life joined with."""
        return receipt.version == self.life(hotkey, receipt).joined

    def _is_paid(self, receipt: Receipt) -> bool:
        """Whether it is of a settled microbatch, and of the attempt that counts at its stage.

        Of a held-out one the record names that attempt.

        Of FORWARDs that is the one whose activations the counted attempt goes on from: its own, or that of
        the last attempt before it that ran one.
        """
        step, microbatch, stage = receipt.step, receipt.microbatch, receipt.stage
        if self.spec.is_heldout(microbatch):
            return step == 0 and receipt.attempt == self._heldout.get((microbatch, stage))
        paid = self._counting.get((step, microbatch, stage))
        if paid is None or (step, microbatch) not in self._settled:
            return False
        if receipt.kind is OpKind.FORWARD:
            ran = self._forward_again.get((step, microbatch, stage), ())
            paid = max((attempt for attempt in ran if attempt <= paid), default=0)
        return receipt.attempt == paid

    def _own_ops(self, hotkey: str) -> list[Receipt]:
        """Receipts of ops that the miner was given, without those of lives that count for nothing."""
        miner = self.miners[hotkey]
        unknown = [life for life in miner.lives if not self.knows_start(hotkey, life)]
        kinds = stage_ops(miner.stage, self.spec.layout.stages)
        return [
            receipt
            for receipt in self._by_name.get(hotkey, {}).values()
            if receipt.kind in kinds
            and receipt.stage == miner.stage
            and not (unknown and self.life(hotkey, receipt) in unknown)
            and self.owner(receipt.step, receipt.microbatch, receipt.attempt, miner.stage) == hotkey
        ]

    def owner(self, step: int, microbatch: int, attempt: int, stage: int) -> str | None:
        """Hotkey that the plan or a re-route assigned an attempt to; None if there was no such attempt."""
        return self._assigned.get((step, microbatch, attempt, stage))

    def runs_forward(self, step: int, microbatch: int, attempt: int, stage: int) -> bool:
        """Whether an attempt has a FORWARD of its own: none where the next stage had its activations."""
        return (step, microbatch, attempt, stage) not in self._backward_only

    def ended_work(self, hotkey: str) -> int:
        """Number of microbatches whose backward this miner ran and its stage counts."""
        return self._ended[hotkey]

    def words(self, hotkey: str) -> tuple[Word, ...]:
        """The words of a miner's last life that it has signed, as many as a record may hold of one.

        The weights that an earlier life spoke of are lost, so that nothing shows whether it was true. Nor is
        it of one of which nobody knows with what it began.
        """
        if hotkey in self._words and not self.knows_start(hotkey, self.last_life(hotkey)):
            return ()
        return self._words.get(hotkey, ())

    # ---- steps ---------------------------------------------------------------------------------

    def counted(self, hotkey: str, step: int) -> tuple[tuple[int, int], ...]:
        """A(t, s, r) of training.md: (microbatch, attempt) in the order of the sum."""
        return self._counted.get((hotkey, step), ())

    def steps(self, hotkey: str) -> list[int]:
        """Steps of the miner's last life with a STEP receipt, from its join up to the first gap."""
        return self.steps_of(hotkey, self.last_life(hotkey))

    def steps_of(self, hotkey: str, life: LifeRecord) -> list[int]:
        """Steps of one of the miner's lives with a STEP receipt, from its join up to the first gap."""
        found = []
        for step in range(life.joined, self.spec.schedule.steps):
            receipt = self.step_receipt(hotkey, step)
            if receipt is None or self.life(hotkey, receipt) is not life:
                break
            found.append(step)
        return found

    def commits(self, hotkey: str, life: LifeRecord) -> list[Receipt]:
        """The COMMITs of one of the miner's lives by version, from its join up to the first gap.

        Each comes after the STEPs before its version.
        """
        made = self._commits_of(hotkey).get(life, {})
        found = []
        for version in range(life.joined, life.joined + len(self.steps_of(hotkey, life)) + 1):
            if self.spec.is_committed(version, life.joined):
                if version not in made:
                    break
                found.append(made[version])
        return found

    def _commits_of(self, hotkey: str) -> dict[LifeRecord, dict[int, Receipt]]:
        """The first COMMIT to each version, by life."""
        if hotkey not in self._commits:
            found = self._commits.setdefault(hotkey, {})
            for receipt in self.receipts.get(hotkey, ()):
                if receipt.kind is OpKind.COMMIT:
                    found.setdefault(self.life(hotkey, receipt), {}).setdefault(receipt.version, receipt)
        return self._commits[hotkey]

    def segments(self, hotkey: str) -> tuple[Segment, ...]:
        """The miner's segments in order: those of its last life, since only their states can be shown."""
        if hotkey not in self._segments:
            last = self.last_life(hotkey)
            commits = [] if last.void else self.commits(hotkey, last)
            self._segments[hotkey] = tuple(
                Segment(start.version, end.version, end.seq) for start, end in pairwise(commits)
            )
        return self._segments[hotkey]

    def has_stepped(self, hotkey: str) -> bool:
        """Whether the miner's last life counts, and has committed to the epoch's last version."""
        last = self.last_life(hotkey)
        commits = self.commits(hotkey, last)
        return not last.void and bool(commits) and commits[-1].version == self.spec.schedule.steps

    def last_life(self, hotkey: str) -> LifeRecord:
        """The newest of the miner's lives: the one that its pseudo-gradient and its snapshots are of."""
        return self.miners[hotkey].lives[-1]

    def life(self, hotkey: str, receipt: Receipt) -> LifeRecord:
        """The life that one of the miner's receipts is of."""
        lives = self.miners[hotkey].lives
        return lives[max(0, bisect_right(lives, receipt.seq, key=attrgetter("first_receipt")) - 1)]

    def step_receipt(self, hotkey: str, step: int) -> Receipt | None:
        """The miner's receipt of a STEP; None if it has none."""
        return self.receipt(hotkey, step, 0, 0, OpKind.STEP)

    def receipt(self, hotkey: str, step: int, microbatch: int, attempt: int, kind: OpKind) -> Receipt | None:
        """The miner's first receipt of an op; None if it has none."""
        return self._by_name.get(hotkey, {}).get((self.epoch, step, microbatch, attempt, kind))

    def learning_rate(self, step: int) -> float:
        """The learning rate that the step's plan gives."""
        return self._plans[step].learning_rate

    def version(self, hotkey: str, step: int) -> int:
        """Weight version that the ops of a step use in this miner's last life."""
        return self.spec.weight_version(step, self.last_life(hotkey).joined)

    def delta(self, hotkey: str) -> tuple[StoredObject, ...] | None:
        """Parts of the pseudo-gradient that this miner contributed to the merge; None if it did not."""
        return next((d.parts for d in self.record.deltas if d.miner == hotkey), None)

    def anchor(self, stage: int) -> BaseRecord | None:
        """The record of the base that the stage's replicas began the epoch from; None if there is none."""
        return self._base(self.spec.anchor(self.epoch), stage)

    def base(self, stage: int) -> BaseRecord | None:
        """The record of the base that the epoch's merge is applied to; None if there is none."""
        return self._base(self.epoch, stage)

    def next_base(self, stage: int) -> BaseRecord | None:
        """The record of the base that the stage's replicas made of this epoch; None if there is none."""
        return self._base(self.epoch + 1, stage)

    def _base(self, number: int, stage: int) -> BaseRecord | None:
        bases = self.record.bases
        return next((base for base in bases if (base.epoch, base.stage) == (number, stage)), None)

    def knows_start(self, hotkey: str, life: LifeRecord) -> bool:
        """Whether a life counts, and its first COMMIT says what it began with if that may be two things."""
        return not life.void and (not life.began or self.first_commit(hotkey, life) is not None)

    def first_commit(self, hotkey: str, life: LifeRecord) -> Receipt | None:
        """The COMMIT with which a life began; None if it has none."""
        return self._commits_of(hotkey).get(life, {}).get(life.joined)

    def _assignments(self) -> dict[tuple[int, int, int, int], str]:
        """(step, microbatch, attempt, stage) -> hotkey, from plans and re-routes."""
        found: dict[tuple[int, int, int, int], str] = {}
        for plan in self._plans.values():
            for index in range(len(plan.routes)):
                for stage, miner in enumerate(plan.route(index)):
                    found[plan.step, index, 0, stage] = miner
        for event in self.record.reroutes:
            found[event.step, event.microbatch, event.attempt, event.stage] = event.miner
        return found

    def _counting_attempts(self) -> dict[tuple[int, int, int], int]:
        """(step, microbatch, stage) -> the attempt that its stage counts."""
        return {
            (step, microbatch, self.miners[miner].stage): attempt
            for (miner, step), counted in self._counted.items()
            if miner in self.miners
            for microbatch, attempt in counted
        }

    def _settlements(self) -> set[tuple[int, int]]:
        """(step, microbatch) of the microbatches that every stage counts."""
        stages = Counter((step, microbatch) for step, microbatch, _ in self._counting)
        return {name for name, found in stages.items() if found == self.spec.layout.stages}
