"""Evidence of audits: fetches it and checks it against signatures and digests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

from blake3 import blake3
from cachetools import FIFOCache

from iota.client.run_objects import ObjectDiffers
from iota.compute.errors import StateError
from iota.compute.state import StageState, load_state
from iota.compute.tokens import Tokens
from iota.console.counts import counted
from iota.data.samples import needs_tokens
from iota.objects import (
    BaseKey,
    DeltaKey,
    EvidenceKey,
    FrameKey,
    max_bytes,
    part_count,
    snapshot_bytes,
    stage_feedback_bytes,
)
from iota.outer.base import base_roots, initial_base, named_weights, read_base
from iota.outer.nesterov import OuterState
from iota.outer.partition import PartError
from iota.protocol.frames import EvidenceItem, FrameName, FrameNotice, StoredObject
from iota.protocol.problems import Problem
from iota.protocol.receipts import OpKind, Receipt
from iota.protocol.records import Word
from iota.spec import RunSpec
from iota.store import OUTAGES, ObjectTooLarge, StoreError
from iota.wire.frame import Frame, FrameError, FrameHeader, decode_frame, split_frames
from validator.audits.encode_again import whole_feedback_root
from validator.audits.own_starts import OwnStartMaker, check_own_start
from validator.audits.record_reader import RecordReader
from validator.audits.sources import Objects, Records, TokenIds
from validator.core.jobs import Base, Feedback, Frames, Snapshot
from validator.core.results import EvidenceMissing, MinerFault, StoreAway, Undelivered

_KEPT_BASES: Final = 2
"""Miners are audited stage by stage, so older bases are not needed again."""


class Evidence(RecordReader):
    """Evidence of one run. A method raises EvidenceMissing if no miner is known to be at fault."""

    def __init__(self, spec: RunSpec, client: Records, objects: Objects, samples: TokenIds) -> None:
        super().__init__(spec, client, objects)
        self._samples = samples
        self._kept: FIFOCache[tuple[str, str], dict[FrameName, Frame]] = FIFOCache(1)
        """(key, digest) of the frames that a miner delivered last -> the frames."""
        self._bases: FIFOCache[tuple[int, int], StageState] = FIFOCache(_KEPT_BASES)
        self._outer: FIFOCache[tuple[int, int], tuple[OuterState, str]] = FIFOCache(1)
        """Of a run with overlap: what own starts are made of, as `_outer_state` has it."""
        self._own: FIFOCache[tuple[str, int], StageState] = FIFOCache(1)
        """(miner, seq of its first COMMIT) -> the own start that was made last."""

    # ---- weights -------------------------------------------------------------------------------

    async def base(self, base: Base) -> StageState:
        """A base without moments, checked against its record.

        The base of epoch 0 is made from the seed; later ones, and one that the spec pins, are fetched.
        """
        epoch, stage = base.epoch, base.stage
        known = self._bases.get((epoch, stage))
        if known is not None:
            return known
        outer, _ = await self._outer_state(base)
        state = StageState(named_weights(self.spec, stage, outer.weights))
        self._bases[epoch, stage] = state
        return state

    async def start(self, base: Base) -> StageState:
        """What a life began with: the base, or its miner's own start from it.

        Raises MinerFault where the miner committed to another own start.
        """
        own = base.own
        if own is None:
            return await self.base(base)
        key = (own.miner, own.commit.seq)
        if key in self._own:
            return self._own[key]
        anchor, rest = await self._outer_state(base)
        if base.record is None:
            raise EvidenceMissing(f"no record says which base {own.miner} began from")
        maker = OwnStartMaker(self.spec, own.commit.epoch, anchor)
        for number, part in enumerate(own.parts):
            delta = DeltaKey(self.spec.id, base.epoch, base.stage, own.miner, number)
            data = await self._stored(part, max_bytes(self.spec, delta, base.stage))
            try:
                await asyncio.to_thread(maker.take, data)
            except PartError as error:
                raise EvidenceMissing(f"{part.key}: {error}") from error
        state = await asyncio.to_thread(maker.state, base.stage)
        await asyncio.to_thread(check_own_start, self.spec, own.miner, own.commit, state, rest)
        self._own[key] = state
        return state

    async def _outer_state(self, base: Base) -> tuple[OuterState, str]:
        """A base, and the root of what is in it besides its start (`BaseRoots.rest`)."""
        at = (base.epoch, base.stage)
        found = self._outer.get(at)
        if found is None:
            found = await self._read_base(base)
            if self.spec.overlaps:  # own starts of all its replicas are made of it
                self._outer[at] = found
        return found

    async def _read_base(self, base: Base) -> tuple[OuterState, str]:
        epoch, stage, record = base.epoch, base.stage, base.record
        what = f"the base of epoch {epoch}, stage {stage}"
        init = self.spec.init
        if epoch == 0 and init is None:
            outer = await asyncio.to_thread(initial_base, self.spec, stage)
            roots = await asyncio.to_thread(base_roots, self.spec, outer)
            if record is not None and record.digest != roots.digest:
                raise EvidenceMissing(
                    f"the recorded base of stage {stage} is not the one that the seed gives"
                )
        elif record is None:
            raise EvidenceMissing(f"{what}, is not in the store")
        else:
            if len(record.parts) != (count := part_count(self.spec, stage)):  # before anything is fetched
                parts_named = counted(len(record.parts), "part")
                raise EvidenceMissing(f"{what}, has {parts_named} where it should have {count}")
            limit = max_bytes(self.spec, BaseKey(self.spec.id, epoch, stage, 0), stage)
            if not record.parts:  # it was not stored when the epoch was sealed
                record = record.model_copy(update={"parts": await self._base_parts(epoch, stage)})
            parts = [await self._stored(part, limit) for part in record.parts]
            try:
                outer = await asyncio.to_thread(read_base, self.spec, stage, parts)
            except PartError as error:
                raise EvidenceMissing(f"{what}: {error}") from error
            pinned = record.digest if epoch or init is None else init.digests[stage]
            roots = await asyncio.to_thread(base_roots, self.spec, outer)
            if not roots.digest == record.digest == pinned:
                raise EvidenceMissing(f"{what}, has another digest than recorded")
        return outer, roots.rest

    async def _base_parts(self, epoch: int, stage: int) -> tuple[StoredObject, ...]:
        try:
            return (await self._client.base(epoch, stage)).parts
        except Problem as problem:
            raise EvidenceMissing(f"the base of epoch {epoch}, stage {stage}: {problem}") from problem

    async def snapshot(self, given: Snapshot) -> StageState:
        """The state that a miner delivered. The caller must compare its digests.

        Raises:
            MinerFault: it is no state of its stage.
            Undelivered: the store has other bytes than the miner announced. Whoever stores junk would else
                hide what its snapshot shows at a lower price than whoever stores nothing.
            EvidenceMissing: the announced object is not in the store.
        """
        name = f"its snapshot of version {given.version}"
        size, limit = given.stored.size, snapshot_bytes(self.spec, given.stage)
        if size > limit:
            raise MinerFault(given.miner, given.seq, f"{name} has {size} bytes, at most {limit}")
        data = await self._announced(given.stored, name)
        try:
            return await asyncio.to_thread(load_state, data, self.spec, given.stage)
        except StateError as error:
            raise MinerFault(given.miner, given.seq, f"{name} is no state: {error}") from error

    async def feedback(self, given: Feedback) -> bytes:
        """The error feedback that a miner delivered, as bf16 of its whole stage.

        Raises MinerFault where it is not what the miner committed to; else as `snapshot`.
        """
        name, commit = "the error feedback that it began with", given.commit
        size, wanted = given.stored.size, stage_feedback_bytes(self.spec, given.stage)
        if size != wanted:
            raise MinerFault(given.miner, commit.seq, f"{name} has {size} bytes, not {wanted}")
        data = await self._announced(given.stored, name)
        try:
            found = await asyncio.to_thread(whole_feedback_root, data, self.spec.outer.part_elements)
        except PartError as error:
            raise MinerFault(given.miner, commit.seq, f"{name} is none: {error}") from error
        said = commit.commitment.feedback if commit.commitment is not None else ""
        if found != said:
            reason = f"{name} is not what it committed to"
            raise MinerFault(given.miner, commit.seq, reason, expected=said, found=found)
        return data

    # ---- inputs and outputs of ops -------------------------------------------------------------

    async def tokens(self, receipt: Receipt | Word) -> Tokens:
        """The token ids of the receipt's or word's microbatch; zeros where its stage reads none."""
        if needs_tokens(self.spec, receipt.stage):
            return await self._samples.microbatch(receipt.epoch, receipt.step, receipt.microbatch)
        return self._samples.blank_tokens()

    async def frame(self, header: FrameHeader, kept: Frames | None = None) -> bytes:
        """The payload of the frame that a receipt names as an input by its header.

        It comes from the store, or from what its miner delivered. Raises Undelivered for another one there.
        """
        if kept is not None:
            frame = await self._kept_frame(kept, header.name)
            if frame.header != header:
                raise Undelivered(f"it delivered another frame {header.name} than its receipt names")
            return frame.payload
        key = FrameKey(self.spec.id, header.name)
        limit = max_bytes(self.spec, key, header.name.stage)
        data = await self._from_store(str(key), self.objects.get(str(key), limit))
        try:
            frame = decode_frame(data, self.spec)
        except FrameError as error:
            raise EvidenceMissing(f"{key} is no frame: {error}") from error
        found, named = ((each.name, each.sender, each.payload) for each in (frame.header, header))
        if found != named:
            raise EvidenceMissing(f"{key} holds another frame of {header.sender} than the receipt names")
        return frame.payload

    async def announced(self, notice: FrameNotice, kept: Frames | None = None) -> bytes:
        """The payload of a frame that the record names by its notice. Else as `frame`."""
        if kept is not None:
            frame = await self._kept_frame(kept, notice.name)
            if blake3(frame.encoded()).hexdigest() != notice.digest:
                raise Undelivered(f"it delivered another frame {notice.name} than the record names")
            return frame.payload
        key = FrameKey(self.spec.id, notice.name)
        limit = max_bytes(self.spec, key, notice.name.stage)
        data = await self._stored(StoredObject(key=str(key), digest=notice.digest, size=notice.size), limit)
        try:
            return decode_frame(data, self.spec).payload
        except FrameError as error:
            raise EvidenceMissing(f"{key} is no frame: {error}") from error

    async def sent_payload(self, hotkey: str, receipt: Receipt, kept: Frames | None = None) -> bytes | None:
        """The payload that the op's miner sent; None if the op sends none. Else as `frame`.

        Where the store has another one than it receipted, the miner is asked for its own: who compares to the
        bit looks at neither. Whoever worked on the other has a receipt that shows it (`all_receipts.py`).
        """
        if receipt.kind is OpKind.EVAL or (receipt.kind is not OpKind.FORWARD and receipt.stage == 0):
            return None
        name = FrameName.of(receipt.key, receipt.stage)
        if kept is not None:
            frame = await self._kept_frame(kept, name)
            if (frame.header.sender, frame.header.payload) != (hotkey, receipt.output):
                raise Undelivered(f"it delivered another frame {name} than it receipted")
            return frame.payload
        key = FrameKey(self.spec.id, name)
        limit = max_bytes(self.spec, key, receipt.stage)
        data = await self._from_store(str(key), self.objects.get(str(key), limit))
        try:
            frame = decode_frame(data, self.spec)
        except FrameError as error:
            raise EvidenceMissing(f"{key} is no frame: {error}") from error
        if (frame.header.sender, frame.header.payload) != (hotkey, receipt.output):
            raise EvidenceMissing(f"{key} holds another frame than {hotkey} receipted")
        return frame.payload

    async def _kept_frame(self, kept: Frames, name: FrameName) -> Frame:
        """A frame of those that a miner delivered, with its digest and its sender's signature checked.

        Raises:
            Undelivered: the miner stored other bytes than it announced, no frames, or not this one.
            EvidenceMissing: the announced object is not in the store.
        """
        key = (kept.stored.key, kept.stored.digest)
        if key not in self._kept:
            self._kept[key] = await self._delivered_frames(kept)
        frame = self._kept[key].get(name)
        if frame is None:
            raise Undelivered(f"its frames of step {kept.step} lack {name}")
        return frame

    async def _delivered_frames(self, kept: Frames) -> dict[FrameName, Frame]:
        what, stored = f"its frames of step {kept.step}", kept.stored
        key = EvidenceKey(self.spec.id, 0, kept.miner, EvidenceItem.FRAMES, kept.step)
        limit = max_bytes(self.spec, key, kept.stage)
        if stored.size > limit:
            raise Undelivered(f"{what} have {stored.size} bytes, at most {limit}")
        data = await self._announced(stored, what)
        try:
            frames = await asyncio.to_thread(lambda: list(split_frames(data, self.spec)))
        except FrameError as error:
            raise Undelivered(f"{what} are none: {error}") from error
        return {frame.header.name: frame for frame in frames}

    # ---- objects -------------------------------------------------------------------------------

    async def _announced(self, stored: StoredObject, what: str) -> bytes:
        """What a miner delivered. Raises Undelivered where it lies there with other bytes."""
        try:
            return await self.objects.get_verified(stored)
        except (ObjectDiffers, ObjectTooLarge) as error:
            raise Undelivered(f"{what}: not the bytes that it announced: {error}") from error
        except StoreError as error:
            raise _missing(stored.key, error) from error

    async def _stored(self, stored: StoredObject, limit: int) -> bytes:
        """An object that a record names, checked against its digest."""
        if stored.size > limit:
            raise EvidenceMissing(
                f"{stored.key} is recorded with {stored.size} bytes, at most {limit} may be"
            )
        return await self._from_store(stored.key, self.objects.get_verified(stored))

    @staticmethod
    async def _from_store(key: str, transfer: Awaitable[bytes]) -> bytes:
        try:
            return await transfer
        except StoreError as error:
            raise _missing(key, error) from error


def _missing(key: str, error: StoreError) -> EvidenceMissing:
    missing = StoreAway if isinstance(error, OUTAGES) else EvidenceMissing
    return missing(f"{key} cannot be had from the store: {error}")
