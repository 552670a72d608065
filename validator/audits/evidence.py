"""Evidence of audits, fetched and held against the signatures and digests that vouch for it."""

from __future__ import annotations

from typing import Final, Protocol

import torch

from iota.client.run_objects import RunObjects
from iota.compute.errors import StateError
from iota.compute.optim import moment_shapes
from iota.compute.state import StageState, load_state, tensors_digest
from iota.compute.tokens import Tokens
from iota.data.samples import Samples, needs_tokens
from iota.model.layout import run_shapes
from iota.objects import BaseKey, FrameKey, max_bytes, snapshot_bytes
from iota.outer.base import base_digest, initial_base, read_base
from iota.outer.partition import PartError
from iota.outer.pseudo_gradient import unflatten
from iota.protocol.messages import Direction, FrameName, StoredObject
from iota.protocol.receipts import OpKind, Receipt, ReceiptBatch
from iota.protocol.records import EpochRecord
from iota.spec import RunSpec
from iota.store import StoreError
from iota.wire.frame import FrameError, FrameHeader, decode_frame, frame_size
from validator.core.jobs import Base, Snapshot
from validator.core.results import EvidenceMissing, MinerFault
from validator.core.sealed import SealBroken, SealedEpoch, checked_receipts

_KEPT_BASES: Final = 2
"""Miners are audited stage by stage, so that two are enough."""


class Records(Protocol):
    """Where public records come from: `OrchestratorClient`."""

    async def epoch_record(self, epoch: int) -> EpochRecord: ...

    async def receipts(self, epoch: int, hotkey: str) -> list[ReceiptBatch]: ...


class Evidence:
    """Fetches for one run. Methods raise EvidenceMissing where nobody is known to be at fault."""

    def __init__(self, spec: RunSpec, records: Records, objects: RunObjects, samples: Samples) -> None:
        self.spec = spec
        self._records, self._objects, self._samples = records, objects, samples
        self._bases: dict[tuple[int, int], StageState] = {}

    # ---- records -------------------------------------------------------------------------------

    async def sealed(self, epoch: int) -> SealedEpoch:
        """The epoch's record with every miner's receipts.

        Raises:
            SealBroken: the orchestrator's record does not hold together.
        """
        record = await self._records.epoch_record(epoch)
        if record.epoch != epoch:
            raise SealBroken(f"asked for epoch {epoch}, got the record of {record.epoch}")
        receipts = {}
        for miner in record.miners:
            batches = await self._records.receipts(epoch, miner.hotkey)
            receipts[miner.hotkey] = checked_receipts(self.spec.id, miner, epoch, batches)
        return SealedEpoch(self.spec, record, receipts)

    async def last_step(self, epoch: int, hotkey: str) -> Receipt | None:
        """The signed STEP receipt that ended `epoch` for this miner, if there is one."""
        for batch in await self._records.receipts(epoch, hotkey):
            for receipt in batch.receipts:
                wanted = (epoch, self.spec.schedule.steps - 1, OpKind.STEP)
                if (receipt.epoch, receipt.step, receipt.kind) == wanted:
                    return receipt
        return None

    # ---- weights -------------------------------------------------------------------------------

    async def base(self, base: Base) -> StageState:
        """A base by its record, moments empty; that of epoch 0 is made from the seed and held against it."""
        epoch, stage, record = base.epoch, base.stage, base.record
        known = self._bases.get((epoch, stage))
        if known is not None:
            return known
        if epoch == 0:
            outer = initial_base(self.spec, stage)
            if record is not None and record.digest != base_digest(self.spec, outer):
                raise EvidenceMissing(
                    f"the recorded base of stage {stage} is not the one that the seed gives"
                )
        elif record is None:
            raise EvidenceMissing(f"the base of epoch {epoch}, stage {stage}, is not in the store")
        else:
            limit = max_bytes(self.spec, BaseKey(self.spec.id, epoch, stage, 0), stage)
            parts = [await self._stored(part, limit) for part in record.parts]
            try:
                outer = read_base(self.spec, stage, parts)
            except PartError as error:
                raise EvidenceMissing(f"the base of epoch {epoch}, stage {stage}: {error}") from error
            if base_digest(self.spec, outer) != record.digest:
                raise EvidenceMissing(
                    f"the base of epoch {epoch}, stage {stage}, has another digest than recorded"
                )
        like = {name: torch.empty(shape) for name, shape in run_shapes(self.spec, stage).items()}
        state = StageState(unflatten(torch.from_numpy(outer.weights), like))
        while len(self._bases) >= _KEPT_BASES:
            self._bases.pop(next(iter(self._bases)))
        self._bases[epoch, stage] = state
        return state

    async def snapshot(self, given: Snapshot) -> StageState:
        """The state that a miner delivered, well-formed; its digests are for the caller to compare.

        Raises:
            MinerFault: it is no state of its stage.
            EvidenceMissing: the store does not have what was announced.
        """
        name = f"its snapshot of version {given.version}"
        size, limit = given.stored.size, snapshot_bytes(self.spec, given.stage)
        if size > limit:
            raise MinerFault(given.miner, given.seq, f"{name} has {size} bytes, at most {limit}")
        data = await self._stored(given.stored, limit)
        try:
            return load_state(data, self.spec, given.stage)
        except StateError as error:
            raise MinerFault(given.miner, given.seq, f"{name} is no state: {error}") from error

    def zero_moments_digest(self, stage: int) -> str:
        """Digest of the moments of a replica that starts afresh."""
        shapes = moment_shapes(self.spec.optimizer, run_shapes(self.spec, stage))
        return tensors_digest({name: torch.zeros(shape) for name, shape in shapes.items()})

    # ---- inputs and outputs of ops -------------------------------------------------------------

    async def tokens(self, receipt: Receipt) -> Tokens:
        """The token ids of the receipt's microbatch; zeros where its stage reads none."""
        if needs_tokens(self.spec, receipt.stage):
            return await self._samples.microbatch(receipt.epoch, receipt.step, receipt.microbatch)
        return self._samples.nothing()

    async def frame(self, header: FrameHeader) -> bytes:
        """The payload of the frame that a receipt names by its header."""
        key = str(FrameKey(self.spec.id, header.name))
        size = frame_size(self.spec, header.name, header.sender, header.receiver)
        data = await self._get(key, size)
        try:
            frame = decode_frame(data, self.spec)
        except FrameError as error:
            raise EvidenceMissing(f"{key} is no frame: {error}") from error
        found, named = ((each.name, each.sender, each.payload) for each in (frame.header, header))
        if found != named:
            raise EvidenceMissing(f"{key} holds another frame of {header.sender} than the receipt names")
        return frame.payload

    async def sent_payload(self, hotkey: str, receipt: Receipt) -> bytes | None:
        """What the op's miner sent; None where the op sends nothing, or nothing is stored any more.

        Raises:
            MinerFault: it sent another payload than it receipted.
        """
        if receipt.kind is not OpKind.FORWARD and receipt.stage == 0:
            return None
        name = FrameName(
            epoch=receipt.epoch,
            step=receipt.step,
            microbatch=receipt.microbatch,
            attempt=receipt.attempt,
            stage=receipt.stage,
            direction=Direction.of(receipt.kind),
        )
        try:
            key = FrameKey(self.spec.id, name)
            data = await self._get(str(key), max_bytes(self.spec, key, receipt.stage))
            frame = decode_frame(data, self.spec)
        except (EvidenceMissing, FrameError):
            return None
        if frame.header.sender == hotkey and frame.header.payload != receipt.output:
            reason = "it sent another frame than it receipted"
            raise MinerFault(hotkey, receipt.seq, reason, expected=receipt.output, found=frame.header.payload)
        return frame.payload

    # ---- objects -------------------------------------------------------------------------------

    async def _get(self, key: str, limit: int) -> bytes:
        """The whole object, of at most `limit` bytes."""
        try:
            return await self._objects.get(key, limit)
        except StoreError as error:
            raise EvidenceMissing(f"{key} cannot be had from the store: {error}") from error

    async def _stored(self, stored: StoredObject, limit: int) -> bytes:
        """An object that a record names, held against its digest."""
        if stored.size > limit:
            raise EvidenceMissing(
                f"{stored.key} is recorded with {stored.size} bytes, at most {limit} may be"
            )
        try:
            return await self._objects.stored(stored)
        except StoreError as error:
            raise EvidenceMissing(f"{stored.key} cannot be had from the store: {error}") from error
