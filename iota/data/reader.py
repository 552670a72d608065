"""Reading sequences of tokens from shards that lie elsewhere, block by block, each one verified."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from iota.data.block_cache import BlockCache, Name
from iota.data.blocks import BLOCK_BYTES, BlockIndex, DamagedShard, covering, index_bytes
from iota.data.manifest import DataError, Manifest, Shard, manifest_id
from iota.data.sequences import SequenceMap, Span
from iota.objects import manifest_folder

MEMORY_BYTES = 16 << 20
_INDEX = -1
"""A shard's index is cached like a block, under this number."""

Fetch = Callable[[str, int, int], Awaitable[bytes]]
"""(key, start, stop) -> those bytes of the object; ends by itself, in time."""
Tokens = npt.NDArray[np.int64]


class ShardReader:
    """Sequences of a data set, fetched in 64 KiB blocks and cached in `cache`.

    Args:
        fetch: reads a byte range of an object; its errors pass through.
        cache: a folder for the cache; each data set gets its own below it.
        max_bytes: bound of the cache on disk.

    Calls may overlap; a block is fetched once, however many wait for it.
    """

    def __init__(
        self, manifest: Manifest, fetch: Fetch, cache: Path, max_bytes: int, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self.manifest = manifest
        self._fetch = fetch
        self._identity = manifest_id(manifest)
        self._itemsize = manifest.dtype.numpy.itemsize
        self._cache = BlockCache(cache / self._identity, max_bytes, memory_bytes)
        self._maps: dict[tuple[bool, int], SequenceMap] = {}
        self._locks: WeakValueDictionary[Name, asyncio.Lock] = WeakValueDictionary()

    def sequence_count(self, length: int) -> int:
        """Training sequences of `length` tokens."""
        return self._map(False, length).count

    def heldout_count(self, length: int) -> int:
        """Held-out sequences of `length` tokens."""
        return self._map(True, length).count

    async def tokens(self, sequence_index: int, length: int) -> Tokens:
        """Training sequence `sequence_index`: inputs and, shifted by one, labels, shape (length + 1,).

        Raises:
            DamagedShard: if the store's bytes are not what the manifest says.
            ValueError: if there is no such sequence.
        """
        return await self._read(self._map(False, length).locate(sequence_index))

    async def heldout_tokens(self, sequence_index: int, length: int) -> Tokens:
        """Like `tokens`, of the held-out shard."""
        return await self._read(self._map(True, length).locate(sequence_index))

    def _map(self, heldout: bool, length: int) -> SequenceMap:
        found = self._maps.get((heldout, length))
        if found is None:
            shards = (self.manifest.heldout,) if heldout else self.manifest.train
            found = self._maps[heldout, length] = SequenceMap(shards, length)
        return found

    async def _read(self, span: Span) -> Tokens:
        start, stop = span.start * self._itemsize, span.stop * self._itemsize
        numbers = covering(start, stop)
        try:
            async with asyncio.TaskGroup() as tasks:
                wanted = [tasks.create_task(self._block(span.shard, number)) for number in numbers]
        except ExceptionGroup as failed:
            # The caller asked for one sequence and gets one reason.
            raise failed.exceptions[0] from failed
        data = b"".join(task.result() for task in wanted)
        return decode(self.manifest, span, data, numbers[0] * BLOCK_BYTES)

    async def _block(self, shard: Shard, number: int) -> bytes:
        name = (shard.name, number)
        if (data := self._cache.recall(name)) is not None:
            return data
        index = await self._index(shard)
        start, stop = index.extent(number)
        return await self._piece(
            name, self._key(shard, "bin"), start, stop, lambda data: index.check(number, data)
        )

    async def _index(self, shard: Shard) -> BlockIndex:
        size = index_bytes(shard, self._itemsize)
        raw = await self._piece(
            (shard.name, _INDEX),
            self._key(shard, "idx"),
            0,
            size,
            lambda raw: BlockIndex(shard, raw, self._itemsize),
        )
        return BlockIndex(shard, raw, self._itemsize)

    async def _piece(
        self, name: Name, key: str, start: int, stop: int, check: Callable[[bytes], object]
    ) -> bytes:
        """One verified piece: from the cache, or fetched as bytes [start, stop) of `key`."""
        # Those who wait for the same piece find it in memory when the first has brought it.
        async with self._locks.setdefault(name, asyncio.Lock()):
            data = self._cache.recall(name)
            if data is None and (data := self._cached(name, check)) is None:
                data = await self._fetch(key, start, stop)
                check(data)
            self._cache.keep(name, data)
            return data

    def _cached(self, name: Name, check: Callable[[bytes], object]) -> bytes | None:
        data = self._cache.load(name)
        if data is None:
            return None
        try:
            check(data)
        except DamagedShard:
            # Our own copy went bad; the store's is asked next, and believed no more easily.
            self._cache.drop(name)
            return None
        return data

    def _key(self, shard: Shard, suffix: str) -> str:
        return f"{manifest_folder(self._identity)}/{shard.name}.{suffix}"


def decode(manifest: Manifest, span: Span, data: bytes, offset: int) -> Tokens:
    """Tokens of `span` from `data`, the shard's bytes from `offset` on.

    Raises:
        DataError: if an id is outside the vocabulary: the manifest itself is wrong then.
    """
    dtype = manifest.dtype.numpy
    first = span.start * dtype.itemsize - offset
    tokens = np.frombuffer(data, dtype, count=span.stop - span.start, offset=first).astype(np.int64)
    if int(tokens.max()) >= manifest.tokenizer.vocab_size:
        raise DataError(f"{span.shard.name} holds an id outside its vocabulary: prepare the data again")
    return tokens
