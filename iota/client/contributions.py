"""Fetches the contributions to a merge as they lie in the store, right or wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Final

from blake3 import blake3

from iota.client.run_objects import RunObjects
from iota.protocol.events import MergeAssign
from iota.protocol.frames import StoredObject
from iota.store import ObjectTooLarge

TRIES: Final = 3
"""Reads of an object that is not the announced one, before it counts as what its maker has stored."""


async def read_contributions(
    objects: RunObjects, assign: MergeAssign, urls: Mapping[str, str]
) -> dict[str, bytes]:
    """The bytes of each contribution by hotkey, right or wrong. `urls` are those at hand.

    Raises StoreError or Problem for one that cannot be read: nothing is known of it then.
    """
    given = assign.contributions

    def read(stored: StoredObject) -> Coroutine[None, None, bytes]:
        return read_contribution(lambda key, size: objects.get(key, size, urls.get(key)), stored)

    try:
        async with asyncio.TaskGroup() as tasks:
            reads = [tasks.create_task(read(each.stored)) for each in given]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return {each.hotkey: read.result() for each, read in zip(given, reads, strict=True)}


async def read_contribution(get: Callable[[str, int], Awaitable[bytes]], stored: StoredObject) -> bytes:
    """The object's bytes; none of it where it is larger than announced. Raises what `get(key, size)` does."""
    data = b""
    for _ in range(TRIES):
        try:
            data = await get(stored.key, stored.size)
        except ObjectTooLarge:
            return b""
        if blake3(data).hexdigest() == stored.digest:
            break
    return data
