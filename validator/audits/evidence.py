"""What an audit needs, fetched and held against the signatures and digests that vouch for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from pydantic import ValidationError

from iota.compute.optim import moment_shapes
from iota.compute.state import StageState, tensors_digest
from iota.compute.tokens import Tokens
from iota.data.samples import Samples, needs_tokens
from iota.identity.signatures import signing_bytes, verify
from iota.model.layout import run_shapes
from iota.objects import BaseKey, FrameKey, max_bytes
from iota.outer.base import base_digest, initial_base, read_base
from iota.outer.partition import PartError
from iota.outer.pseudo_gradient import unflatten
from iota.protocol.messages import Direction, FrameName
from iota.protocol.receipts import OpKind, Receipt, ReceiptBatch, SignedHeader
from iota.protocol.records import BaseRecord, EpochRecord
from iota.spec import RunSpec
from iota.wire.frame import DOMAIN, FrameError, FrameHeader, decode_frame, frame_size
from validator.audits.errors import Blame, Missing
from validator.audits.fetch import Fetcher
from validator.audits.replay import OpInputs
from validator.audits.sealed import SealBroken, SealedEpoch, checked_receipts

_KEPT_BASES = 2
"""Miners are audited stage by stage, so that two are enough."""


class Records(Protocol):
    """Where public records come from: `OrchestratorClient`."""

    async def epoch_record(self, epoch: int) -> EpochRecord: ...

    async def receipts(self, epoch: int, hotkey: str) -> list[ReceiptBatch]: ...


@dataclass(frozen=True)
class Input:
    """An input frame as the receipt under audit names it."""

    header: FrameHeader
    signed: SignedHeader


class Evidence:
    """Fetches for one run. Methods raise Missing (nobody's known fault) or Blame (somebody's)."""

    def __init__(self, spec: RunSpec, records: Records, fetcher: Fetcher, samples: Samples) -> None:
        self.spec = spec
        self._records, self._fetcher, self._samples = records, fetcher, samples
        self._bases: dict[tuple[int, int], StageState] = {}
        self.blamed: list[Blame] = []
        """Proofs against others than the miner under audit, for whoever files verdicts to take."""

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

    async def base(self, sealed: SealedEpoch, stage: int) -> StageState:
        """The weights that the stage's replicas began the epoch from; moments empty."""
        return await self.stored_base(sealed.record.bases, sealed.epoch, stage)

    async def stored_base(self, records: Sequence[BaseRecord], epoch: int, stage: int) -> StageState:
        """A base by its record; that of epoch 0 is made from the seed and held against the record."""
        known = self._bases.get((epoch, stage))
        if known is not None:
            return known
        record = next((r for r in records if (r.epoch, r.stage) == (epoch, stage)), None)
        if epoch == 0:
            outer = initial_base(self.spec, stage)
            if record is not None and record.digest != base_digest(self.spec, outer):
                raise Missing(f"the recorded base of stage {stage} is not the one that the seed gives")
        elif record is None:
            raise Missing(f"the base of epoch {epoch}, stage {stage}, is not in the store")
        else:
            limit = max_bytes(self.spec, BaseKey(self.spec.id, epoch, stage, 0), stage)
            parts = [await self._fetcher.stored(part, limit) for part in record.parts]
            try:
                outer = read_base(self.spec, stage, parts)
            except PartError as error:
                raise Missing(f"the base of epoch {epoch}, stage {stage}: {error}") from error
            if base_digest(self.spec, outer) != record.digest:
                raise Missing(f"the base of epoch {epoch}, stage {stage}, has another digest than recorded")
        like = {name: torch.empty(shape) for name, shape in run_shapes(self.spec, stage).items()}
        state = StageState(unflatten(torch.from_numpy(outer.weights), like))
        while len(self._bases) >= _KEPT_BASES:
            self._bases.pop(next(iter(self._bases)))
        self._bases[epoch, stage] = state
        return state

    def zero_moments_digest(self, stage: int) -> str:
        """Digest of the moments of a replica that starts afresh."""
        shapes = moment_shapes(self.spec.optimizer, run_shapes(self.spec, stage))
        return tensors_digest({name: torch.zeros(shape) for name, shape in shapes.items()})

    # ---- inputs --------------------------------------------------------------------------------

    async def inputs(self, sealed: SealedEpoch, hotkey: str, receipt: Receipt) -> OpInputs:
        """Tokens and frames that the receipt's op worked on.

        Raises:
            Blame: the receipt names inputs that cannot be right.
            Missing: a frame is not in the store.
        """
        named = self._named(hotkey, receipt)
        payloads: dict[Direction, bytes] = {}
        for each in named:
            self._check_sender(sealed, hotkey, receipt, each)
            payloads[each.header.name.direction] = await self._frame(each)
        return OpInputs(
            tokens=await self._tokens(receipt),
            stage_input=payloads.get(Direction.FORWARD),
            gradient=payloads.get(Direction.BACKWARD),
        )

    async def _tokens(self, receipt: Receipt) -> Tokens:
        if needs_tokens(self.spec, receipt.stage):
            return await self._samples.microbatch(receipt.epoch, receipt.step, receipt.microbatch)
        return np.zeros((self.spec.data.sequences, self.spec.data.sequence_length + 1), dtype=np.int64)

    def _named(self, hotkey: str, receipt: Receipt) -> list[Input]:
        """The receipt's inputs, each one that this op must have, signed by its sender."""
        wanted = []
        if receipt.stage > 0:
            wanted.append((receipt.stage - 1, Direction.FORWARD))
        if receipt.kind is OpKind.BACKWARD:
            wanted.append((receipt.stage + 1, Direction.BACKWARD))
        found: list[Input] = []
        for signed in receipt.inputs:
            try:
                header = FrameHeader.model_validate_json(signed.header)
            except ValidationError:
                raise Blame(hotkey, receipt.seq, "its receipt names an input that is no frame") from None
            message = signing_bytes(DOMAIN, signed.header.encode())
            if not verify(message, bytes.fromhex(signed.signature), header.sender):
                raise Blame(hotkey, receipt.seq, "its receipt names an input that its sender did not sign")
            found.append(Input(header, signed))
        names = [(i.header.name.stage, i.header.name.direction) for i in found]
        if names != wanted:
            raise Blame(hotkey, receipt.seq, "its receipt names other inputs than its op has")
        for each in found:
            name = each.header.name
            same = (name.epoch, name.step, name.microbatch) == (
                receipt.epoch,
                receipt.step,
                receipt.microbatch,
            )
            if not same or each.header.run != self.spec.id:
                raise Blame(hotkey, receipt.seq, "its receipt names an input of another microbatch")
        return found

    def _check_sender(self, sealed: SealedEpoch, hotkey: str, receipt: Receipt, given: Input) -> None:
        """The sender must have had the microbatch; what it sent must be what it receipted."""
        header, name = given.header, given.header.name
        owner = sealed.owner(name.step, name.microbatch, name.attempt, name.stage)
        if owner != header.sender:
            raise Blame(hotkey, receipt.seq, f"its input came from {header.sender}, who had no part in it")
        if name.direction is Direction.FORWARD:
            kind = OpKind.FORWARD
        else:
            kind = OpKind.LOSS if name.stage == self.spec.last_stage else OpKind.BACKWARD
        sent = sealed.receipt(header.sender, (name.step, name.microbatch, name.attempt, kind))
        # Without a receipt the signed header alone says who sent what; the receiver did nothing wrong.
        if sent is not None and sent.output != header.payload:
            reason = "it sent another frame than it receipted"
            self.blamed.append(
                Blame(header.sender, sent.seq, reason, expected=sent.output, found=header.payload)
            )

    async def sent_payload(self, hotkey: str, receipt: Receipt) -> bytes | None:
        """What the op's miner sent; None where the op sends nothing, or nothing is stored any more.

        Raises:
            Blame: it sent another payload than it receipted.
        """
        forward = receipt.kind is OpKind.FORWARD
        if not forward and receipt.stage == 0:
            return None
        name = FrameName(
            epoch=receipt.epoch,
            step=receipt.step,
            microbatch=receipt.microbatch,
            attempt=receipt.attempt,
            stage=receipt.stage,
            direction=Direction.FORWARD if forward else Direction.BACKWARD,
        )
        try:
            key = FrameKey(self.spec.id, name)
            limit = max_bytes(self.spec, key, receipt.stage)
            frame = decode_frame(await self._fetcher.get(str(key), limit), self.spec, verify_header)
        except (Missing, FrameError):
            return None
        if frame.header.sender == hotkey and frame.header.payload != receipt.output:
            reason = "it sent another frame than it receipted"
            raise Blame(hotkey, receipt.seq, reason, expected=receipt.output, found=frame.header.payload)
        return frame.payload

    async def _frame(self, given: Input) -> bytes:
        header = given.header
        key = str(FrameKey(self.spec.id, header.name))
        size = frame_size(self.spec, header.name, header.sender, header.receiver)
        data = await self._fetcher.get(key, size)
        try:
            frame = decode_frame(data, self.spec, verify_header)
        except FrameError as error:
            raise Missing(f"{key} is no frame: {error}") from error
        if (frame.header.name, frame.header.sender, frame.header.payload) != (
            header.name,
            header.sender,
            header.payload,
        ):
            raise Missing(f"{key} holds another frame of {header.sender} than the receipt names")
        return frame.payload


def verify_header(text: bytes, signature: bytes, hotkey: str) -> bool:
    """Whether a frame's header is signed by `hotkey`."""
    return verify(signing_bytes(DOMAIN, text), signature, hotkey)
