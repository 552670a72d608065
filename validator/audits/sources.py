"""Where evidence is read from: a run's servers, or a bundle (`validator.bundles`)."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from iota.protocol.frames import StoredObject
from iota.protocol.receipts import ReceiptBatch
from iota.protocol.records import BaseRecord


class Records(Protocol):
    """The orchestrator's answers, unchecked: `OrchestratorClient` has the same methods."""

    async def record(self, epoch: int) -> bytes:
        """The record of a sealed epoch as JSON."""

    async def receipts(self, epoch: int, hotkey: str) -> list[ReceiptBatch]:
        """A miner's receipt batches that touch a sealed epoch."""

    async def base(self, epoch: int, stage: int) -> BaseRecord:
        """The record of a stored base."""


class Objects(Protocol):
    """A run's objects: `RunObjects` has the same methods. They raise StoreError."""

    async def get(self, key: str, max_bytes: int) -> bytes:
        """The object, of at most `max_bytes`; unverified."""

    async def get_verified(self, stored: StoredObject) -> bytes:
        """An announced object, of the announced digest."""


class TokenIds(Protocol):
    """Token ids, int64 (sequences, sequence_length + 1): `Samples` has the same methods."""

    async def microbatch(self, epoch: int, step: int, index: int) -> npt.NDArray[np.integer]:
        """The token ids of a microbatch."""

    def blank_tokens(self) -> npt.NDArray[np.integer]:
        """Zeros, for a stage that reads no token ids."""
