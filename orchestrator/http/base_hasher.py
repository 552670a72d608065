"""The digest of a base whose partitions come one after another."""

from __future__ import annotations

import asyncio
import tempfile
from typing import Final

import numpy as np
from blake3 import blake3

from iota.outer.base_values import read_base_part
from iota.outer.nesterov import OuterState
from iota.outer.partition import part_bytes
from iota.protocol.frames import StoredObject
from iota.spec import RunSpec
from iota.store import ObjectStore

_CHUNK: Final = 1 << 24
"""Bytes that are hashed at a time from a file."""
_PART_S: Final = 5.0
_MIN_BYTES_PER_S: Final = 1 << 20
"""A part has `_PART_S` and its size by this to be read."""


class BaseHasher:
    """`base_digest` with one partition in memory. Momentum comes after all weights: it waits in a file."""

    def __init__(self, spec: RunSpec) -> None:
        self._spec, self._hasher = spec, blake3()
        self._momenta = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `__exit__`

    def __enter__(self) -> BaseHasher:
        return self

    def __exit__(self, *_: object) -> None:
        self._momenta.close()

    def take(self, partition: OuterState) -> None:
        """Take the next partition. Blocks."""
        self._hasher.update(part_bytes(partition.weights))
        if self._spec.outer.momentum:
            self._momenta.write(part_bytes(partition.momentum))

    def digest(self) -> str:
        """The digest (hex), once all partitions were taken. Blocks."""
        self._momenta.seek(0)
        while chunk := self._momenta.read(_CHUNK):
            self._hasher.update(chunk)
        return self._hasher.hexdigest()


def base_partition(spec: RunSpec, data: bytes, size: int) -> OuterState:
    """A partition of `size` elements from its bytes in the store. Raises PartError."""
    read = read_base_part(spec, data, size)
    return OuterState(read["weights"], read.get("momentum", np.zeros_like(read["weights"])))


async def stored_bytes(store: ObjectStore, part: StoredObject) -> bytes:
    """The object under a part's key, unverified. Raises StoreError, or TimeoutError where it is slow."""
    async with asyncio.timeout(_PART_S + part.size / _MIN_BYTES_PER_S):
        return await store.get(part.key, part.size)
