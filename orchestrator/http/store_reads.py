"""Reads from the object store that have a deadline, and that hold what they got to its digest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

from blake3 import blake3

from iota.outer.partition import PartError
from iota.protocol.frames import StoredObject
from iota.store import ObjectStore, StoreUnavailable

ANSWER_S: Final = 5.0
"""Deadline of an answer without a body. A store that takes longer counts as away."""
_MIN_BYTES_PER_S: Final = 1 << 20
"""An object that is read has `ANSWER_S` and its size by this."""
T = TypeVar("T")


async def within(limit_s: float, answer: Awaitable[T]) -> T:
    """The store's answer. Raises StoreUnavailable where it takes longer."""
    try:
        async with asyncio.timeout(limit_s):
            return await answer
    except TimeoutError:
        raise StoreUnavailable(f"the store did not answer within {limit_s:g} s") from None


async def stored_bytes(store: ObjectStore, key: str, size: int) -> bytes:
    """At most `size` bytes under a key, unverified. Raises StoreError."""
    return await within(ANSWER_S + size / _MIN_BYTES_PER_S, store.get(key, size))


async def verified_part(store: ObjectStore, part: StoredObject) -> bytes:
    """The bytes of a part. Raises StoreError, and PartError where the store holds others."""
    data = await stored_bytes(store, part.key, part.size)
    if (await asyncio.to_thread(blake3, data)).hexdigest() != part.digest:
        raise PartError(f"{part.key} holds other bytes than its digest says")
    return data
