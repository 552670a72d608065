"""One sealed epoch from public records: its receipts, checked, and which work was assigned and settled."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise

from iota.identity.certificates import certificate_fault
from iota.identity.signatures import signing_bytes, verify
from iota.protocol.merkle import merkle_root
from iota.protocol.messages import StoredObject
from iota.protocol.plans import WholePlan
from iota.protocol.receipts import (
    RECEIPTS_DOMAIN,
    OpKey,
    OpKind,
    Receipt,
    ReceiptBatch,
    signed_payload,
)
from iota.protocol.records import BaseRecord, EpochRecord, MinerRecord
from iota.spec import RunSpec
from validator.core.record_checks import SealBroken

__all__ = ["SealBroken", "SealedEpoch", "checked_receipts", "stage_ops"]


def stage_ops(stage: int, stages: int) -> frozenset[OpKind]:
    """The ops on a microbatch that a stage has: drawn and paid one by one. STEP is audited as a step.

    A receipt of any other kind is of no op: the engine of the stage could not run it.
    """
    if stage == stages - 1:
        return frozenset({OpKind.LOSS})
    return frozenset({OpKind.FORWARD, OpKind.BACKWARD})


class SealedEpoch:
    """An epoch's record, which `check_record` takes, its plans and all its receipts.

    Raises SealBroken if the seal does not cover the receipts, the plans are not those of the record, or a
    miner's certificate does not give it the owner that the record names.
    """

    def __init__(
        self,
        spec: RunSpec,
        record: EpochRecord,
        plans: Sequence[WholePlan],
        receipts: Mapping[str, Sequence[Receipt]],
    ) -> None:
        self.spec, self.record, self.epoch = spec, record, record.epoch
        self.receipts = {hotkey: tuple(given) for hotkey, given in receipts.items()}
        chains = [receipts[hotkey] for hotkey in sorted(receipts) if receipts[hotkey]]
        root = merkle_root([merkle_root([r.content_digest() for r in chain]) for chain in chains])
        if sum(map(len, chains)) != record.seal.receipts or root != record.seal.root:
            raise SealBroken(f"the receipts of epoch {record.epoch} are not those that were sealed")
        if [(plan.step, plan.root()) for plan in plans] != [(p.step, p.root) for p in record.plans]:
            raise SealBroken(f"the plans of epoch {record.epoch} are not those of its record")
        self.miners = {miner.hotkey: miner for miner in record.miners}
        for miner in record.miners:
            _check_owner(spec.id, miner)
        self._plans = {plan.step: plan for plan in plans}
        self._assigned = self._assignments()
        self._counted = {(c.miner, c.step): c.counted for c in record.counted}
        self._settled = self._settlements()
        self._by_name: dict[str, dict[OpKey, Receipt]] = {}
        for hotkey, given in self.receipts.items():
            named = self._by_name.setdefault(hotkey, {})
            for receipt in given:
                named.setdefault(receipt.key, receipt)

    # ---- work ----------------------------------------------------------------------------------

    def owner_of(self, hotkey: str) -> str:
        """The hotkey that is paid for a miner's work, and banned for it: the miner's own as a rule."""
        return self.miners[hotkey].owner

    def auditable(self, hotkey: str) -> list[Receipt]:
        """Receipts of ops that are paid or counted in a sum; each op once, also if it is claimed twice."""
        return [
            receipt
            for receipt in self._own_ops(hotkey)
            if (receipt.step, receipt.microbatch) in self._settled
            or (receipt.microbatch, receipt.attempt) in self.counted(hotkey, receipt.step)
        ]

    def paid(self, hotkey: str) -> list[Receipt]:
        """Receipts of assigned ops of settled microbatches: the work that scores count."""
        return [r for r in self._own_ops(hotkey) if (r.step, r.microbatch) in self._settled]

    def is_summed(self, hotkey: str, receipt: Receipt) -> bool:
        """Whether the op's weight gradient stands in a sum that the miner has a STEP receipt of."""
        counted = (receipt.microbatch, receipt.attempt) in self.counted(hotkey, receipt.step)
        return counted and self.step_receipt(hotkey, receipt.step) is not None

    def _own_ops(self, hotkey: str) -> list[Receipt]:
        miner = self.miners[hotkey]
        kinds = stage_ops(miner.stage, self.spec.layout.stages)
        return [
            receipt
            for receipt in self._by_name.get(hotkey, {}).values()
            if receipt.kind in kinds
            and receipt.stage == miner.stage
            and receipt.step >= miner.joined
            and self.owner(receipt.step, receipt.microbatch, receipt.attempt, miner.stage) == hotkey
        ]

    def owner(self, step: int, microbatch: int, attempt: int, stage: int) -> str | None:
        """Hotkey that the plan or a re-route assigned an attempt to; None if there was no such attempt."""
        return self._assigned.get((step, microbatch, attempt, stage))

    def ended_work(self, hotkey: str) -> int:
        """Number of microbatches whose backward this miner ran and its stage counts."""
        return sum(len(counted) for (miner, _), counted in self._counted.items() if miner == hotkey)

    # ---- steps ---------------------------------------------------------------------------------

    def counted(self, hotkey: str, step: int) -> tuple[tuple[int, int], ...]:
        """A(t, s, r) of training.md: (microbatch, attempt) in the order of the sum."""
        return self._counted.get((hotkey, step), ())

    def steps(self, hotkey: str) -> list[int]:
        """Steps with a STEP receipt, from the miner's join up to the first gap."""
        found = []
        for step in range(self.miners[hotkey].joined, self.spec.schedule.steps):
            if self.step_receipt(hotkey, step) is None:
                break
            found.append(step)
        return found

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
        """Weight version that this replica's ops of a step use."""
        return self.spec.weight_version(step, self.miners[hotkey].joined)

    def delta(self, hotkey: str) -> tuple[StoredObject, ...] | None:
        """Parts of the pseudo-gradient that this miner contributed to the merge; None if it did not."""
        return next((d.parts for d in self.record.deltas if d.miner == hotkey), None)

    def base(self, stage: int) -> BaseRecord | None:
        """The record of the base that the stage began the epoch with; None if there is none."""
        bases = self.record.bases
        return next((base for base in bases if (base.epoch, base.stage) == (self.epoch, stage)), None)

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

    def _settlements(self) -> set[tuple[int, int]]:
        """(step, microbatch) of the microbatches that every stage counts."""
        stages: dict[tuple[int, int], set[int]] = defaultdict(set)
        for (miner, step), counted in self._counted.items():
            for microbatch, _ in counted:
                if miner in self.miners:
                    stages[step, microbatch].add(self.miners[miner].stage)
        return {name for name, found in stages.items() if len(found) == self.spec.layout.stages}


def _check_owner(run: str, miner: MinerRecord) -> None:
    """Raise SealBroken unless the miner works by itself or has its owner's certificate."""
    certificate = miner.certificate
    if certificate is None:
        fault = None if miner.owner == miner.hotkey else "is missing"
    elif certificate.owner != miner.owner:
        fault = f"is of {certificate.owner}"
    else:
        fault = certificate_fault(certificate, run, miner.hotkey)
    if fault is not None:
        raise SealBroken(f"the certificate of {miner.hotkey} as a worker of {miner.owner} {fault}")


def checked_receipts(
    run: str, miner: MinerRecord, epoch: int, batches: Sequence[ReceiptBatch]
) -> list[Receipt]:
    """The miner's receipts of the epoch, from its signed batches.

    Raises SealBroken for a bad signature, a broken chain, a gap, or a receipt of another epoch.
    """
    chain: list[Receipt] = []
    for batch in batches:
        if not batch.receipts:
            continue
        head = batch.receipts[-1].content_digest()
        payload = signing_bytes(RECEIPTS_DOMAIN, signed_payload(run, miner.hotkey, head))
        if not verify(payload, bytes.fromhex(batch.signature), miner.hotkey):
            raise SealBroken(f"a batch of receipts is not signed by {miner.hotkey}")
        # Batches may overlap where one was sent again.
        chain += [r for r in batch.receipts if not chain or r.seq > chain[-1].seq]
    for before, after in pairwise(chain):
        if after.seq != before.seq + 1 or after.previous != before.content_digest():
            raise SealBroken(f"the receipts of {miner.hotkey} do not chain at {after.seq}")
    own = [r for r in chain if miner.first_receipt <= r.seq <= miner.last_receipt]
    if len(own) != miner.last_receipt - miner.first_receipt + 1:
        raise SealBroken(f"receipts of {miner.hotkey} are missing")
    if any(r.epoch != epoch for r in own):
        raise SealBroken(f"a receipt of {miner.hotkey} is of another epoch")
    return own
