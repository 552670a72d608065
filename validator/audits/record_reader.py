"""Reads an epoch's record, plans and receipts, and checks them against its seal, without a replay."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from blake3 import blake3
from pydantic import ValidationError

from iota.console.counts import counted
from iota.objects import PlanKey, max_plan_bytes
from iota.protocol.events import EpochClose
from iota.protocol.merkle import merkle_root
from iota.protocol.plans import WholePlan, allows_rate
from iota.protocol.records import EpochRecord, PlanRecord
from iota.protocol.seals import member_parts
from iota.settings.sentences import sentence
from iota.spec import RunSpec
from iota.store import ObjectTooLarge
from validator.audits.sources import Objects, Records
from validator.core.all_receipts import check_receipts
from validator.core.record_checks import check_receipt_counts, check_record
from validator.core.sealed import SealBroken, SealedEpoch
from validator.core.signed_chains import checked_receipts

_RECORD_TRIES: Final = 3
"""A record comes unsigned, so what lies between may have changed it: it is asked for again."""


class RecordReader:
    """Records of one run."""

    def __init__(self, spec: RunSpec, client: Records, objects: Objects) -> None:
        self.spec = spec
        self._client, self.objects = client, objects

    async def record(self, seal: EpochClose) -> EpochRecord:
        """The record that a seal names.

        Raises SealBroken where the orchestrator gives another one, or what it sealed is no record.
        """
        for _ in range(_RECORD_TRIES):
            data = await self._client.record(seal.epoch)
            if blake3(data).hexdigest() == seal.record:
                break
        else:
            raise SealBroken(
                f"the record that is served for epoch {seal.epoch} is not the one that was sealed"
            )
        try:
            record = EpochRecord.model_validate_json(data)
        except ValidationError as error:
            raise SealBroken(f"what was sealed is no record: {sentence(error)[:200]}") from None
        members = merkle_root([part.content_digest() for part in member_parts(record)])
        given = (record.epoch, record.root, record.receipts, members)
        if given != (seal.epoch, seal.root, seal.receipts, seal.members):
            raise SealBroken(f"the record of epoch {seal.epoch} contradicts the seal that names it")
        return record

    async def sealed(self, record: EpochRecord, miners: Collection[str] | None = None) -> SealedEpoch:
        """A sealed record with its plans and every miner's receipts, checked; with `miners` theirs alone.

        Raises SealBroken if the orchestrator's record contradicts itself, its plans or the receipts, or holds
        receipts that it had to refuse.
        """
        epoch = record.epoch
        steps = [plan.step for plan in record.plans]
        if len(steps) != self.spec.schedule.steps or steps != list(range(len(steps))):
            raise SealBroken(f"the record of epoch {epoch} has not one plan for each step")
        # The plans first, since one that the store lacks for now has all of this asked again.
        plans = [await self._plan(epoch, plan) for plan in record.plans]
        check_record(self.spec, record)
        check_receipt_counts(self.spec, record, plans)
        receipts = {}
        for miner in record.miners:
            if miners is None or miner.hotkey in miners:
                batches = await self._client.receipts(epoch, miner.hotkey)
                receipts[miner.hotkey] = checked_receipts(self.spec.id, miner, epoch, batches)
        sealed = SealedEpoch(self.spec, record, plans, receipts, part=miners is not None)
        sealed.faults = await asyncio.to_thread(check_receipts, sealed)
        return sealed

    async def _plan(self, epoch: int, named: PlanRecord) -> WholePlan:
        """The plan that a record names. Raises SealBroken for an object that is no plan of that step.

        The store may lack it for a while, which is nobody's fault: a StoreError is for the caller to outlast.
        """
        key = str(PlanKey(self.spec.id, epoch, named.step, named.root))
        try:
            data = await self.objects.get(key, max_plan_bytes(self.spec))
            plan = WholePlan.model_validate_json(data)
        except ObjectTooLarge as error:
            raise SealBroken(f"{key} is no plan: {error}") from None
        except ValidationError as error:
            raise SealBroken(f"{key} is no plan: {sentence(error)[:200]}") from None
        if (plan.epoch, plan.step) != (epoch, named.step):
            raise SealBroken(f"{key} is the plan of epoch {plan.epoch} step {plan.step}")
        if not allows_rate(self.spec, plan):
            raise SealBroken(f"{key} has a learning rate that the spec forbids: {plan.learning_rate}")
        microbatches, stages = len(plan.routes), len(plan.routes[0])
        if (microbatches, stages) != (self.spec.planned(plan.step), self.spec.layout.stages):
            raise SealBroken(f"{key} has {counted(microbatches, 'microbatch')} at {counted(stages, 'stage')}")
        return plan
