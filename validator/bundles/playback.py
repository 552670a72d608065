"""The sources of `Evidence` from a bundle: nothing is asked of any server."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
from blake3 import blake3
from pydantic import ValidationError

from iota.client.run_objects import ObjectDiffers
from iota.protocol.frames import StoredObject
from iota.protocol.receipts import ReceiptBatch
from iota.protocol.records import BaseRecord
from iota.settings.sentences import sentence
from iota.spec import RunSpec
from iota.store import ObjectMissing, ObjectTooLarge
from validator.bundles import form
from validator.bundles.archive import MAX_BUNDLE_BYTES, BundleReader, BundleRefused
from validator.bundles.recording import BATCHES

_MAX_JSON: Final = 256 << 20
"""Bytes of a record or of a miner's receipts: as many as are read of an orchestrator's answer."""


class Playback:
    """Reads one bundle. Every method raises BundleRefused for a member that is missing or malformed."""

    def __init__(self, spec: RunSpec, reader: BundleReader) -> None:
        self._spec, self._reader = spec, reader
        self.tokens: dict[tuple[int, int, int], npt.NDArray[np.integer]] = {}
        """(epoch, step, microbatch) -> the token ids that were read."""

    async def record(self, epoch: int) -> bytes:
        """As `Records.record`."""
        return self._reader.read(form.RECORD, _MAX_JSON)

    async def receipts(self, epoch: int, hotkey: str) -> list[ReceiptBatch]:
        """As `Records.receipts`."""
        name = form.receipts_name(epoch, hotkey)
        try:
            return BATCHES.validate_json(self._reader.read(name, _MAX_JSON))
        except ValidationError as error:
            raise BundleRefused(f"{name} holds no receipts: {sentence(error)[:200]}") from None

    async def base(self, epoch: int, stage: int) -> BaseRecord:
        """As `Records.base`."""
        name = form.base_name(epoch, stage)
        try:
            return BaseRecord.model_validate_json(self._reader.read(name, _MAX_JSON))
        except ValidationError as error:
            raise BundleRefused(f"{name} is no record of a base: {sentence(error)[:200]}") from None

    async def get(self, key: str, max_bytes: int) -> bytes:
        """As `Objects.get`: what the bundle lacks, the store had lost."""
        name = form.object_name(key)
        if name not in self._reader.names():
            raise ObjectMissing(f"{name} is not in the bundle")
        data = self._reader.read(name, MAX_BUNDLE_BYTES)
        if len(data) > max_bytes:
            raise ObjectTooLarge(f"{name} has {len(data)} bytes, at most {max_bytes} are taken")
        return data

    async def get_verified(self, stored: StoredObject) -> bytes:
        """As `Objects.get_verified`."""
        data = await self.get(stored.key, stored.size)
        if blake3(data).hexdigest() != stored.digest:
            raise ObjectDiffers(f"{stored.key} holds other bytes than were announced")
        return data

    async def microbatch(self, epoch: int, step: int, index: int) -> npt.NDArray[np.integer]:
        """As `TokenIds.microbatch`."""
        name, size = form.tokens_name(epoch, step, index), form.tokens_bytes(self._spec)
        data = self._reader.read(name, size)
        if len(data) != size:
            raise BundleRefused(f"{name} has {len(data)} bytes, not {size}")
        tokens = np.frombuffer(data, "<i4").astype(np.int64)
        if tokens.min() < 0 or tokens.max() >= self._spec.model.vocab_size:
            raise BundleRefused(f"{name} has a token id outside the vocabulary")
        found = self.tokens[epoch, step, index] = tokens.reshape(self._spec.data.sequences, -1)
        return found

    def blank_tokens(self) -> npt.NDArray[np.integer]:
        """As `TokenIds.blank_tokens`."""
        data = self._spec.data
        return np.zeros((data.sequences, data.sequence_length + 1), dtype=np.int64)
