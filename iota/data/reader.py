"""Reads token sequences from remote shards, in verified and cached blocks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from iota.data.block_cache import BlockCache, Name
from iota.data.blocks import BLOCK_BYTES, BlockIndex, DamagedShard, covering, index_bytes
from iota.data.manifest import DataError, Manifest, Shard, manifest_id
from iota.data.sequences import SequenceMap, Span
from iota.objects import manifest_folder

log = logging.getLogger(__name__)

MEMORY_BYTES = 16 << 20
"""Room for 256 blocks."""
_INDEX = -1
"""Block number under which a shard's index is cached."""

Fetch = Callable[[str, int, int], Awaitable[bytes]]
"""(key, start, stop) -> bytes [start, stop) of the object. Implementations have a deadline of their own."""
Tokens = npt.NDArray[np.int64]
_T = TypeVar("_T")


class ShardReader:
    """Sequences of a data set, fetched in 64 KiB blocks. Concurrent reads of a block share one fetch.

    Args:
        fetch: reads a byte range of an object; its errors pass through.
        cache: folder of the block cache; each data set has a subfolder.
        max_bytes: bound of the cache on disk.
        memory_bytes: bound of the cache in memory.
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
        """Training sequence `sequence_index`, int64 (length + 1,): inputs, and labels shifted by one.

        Raises:
            DamagedShard: if fetched bytes do not have the manifest's digest.
            ValueError: if there is no such sequence.
        """
        return await self._read(self._map(False, length).locate(sequence_index))

    async def heldout_tokens(self, sequence_index: int, length: int) -> Tokens:
        """Like `tokens`, from the held-out shard."""
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
        blocks = await gather(self._block(span.shard, number) for number in numbers)
        return decode(self.manifest, span, b"".join(blocks), numbers[0] * BLOCK_BYTES)

    async def _block(self, shard: Shard, number: int) -> bytes:
        name = (shard.name, number)
        if (data := self._cache.get(name)) is not None:
            return data
        index = await self._index(shard)
        start, stop = index.extent(number)
        return await self._piece(name, self._key(shard, "bin"), start, stop, partial(index.check, number))

    async def _index(self, shard: Shard) -> BlockIndex:
        size = index_bytes(shard, self._itemsize)
        parse = partial(BlockIndex, shard, itemsize=self._itemsize)
        return parse(await self._piece((shard.name, _INDEX), self._key(shard, "idx"), 0, size, parse))

    async def _piece(
        self, name: Name, key: str, start: int, stop: int, check: Callable[[bytes], object]
    ) -> bytes:
        """The block or index `name`: from the cache, or fetched as bytes [start, stop) of `key`.

        `check` raises DamagedShard for bytes that do not have their digest.
        """
        # The lock makes concurrent readers of a piece wait for the first one's fetch.
        async with self._locks.setdefault(name, asyncio.Lock()):
            data = self._cache.get(name)
            if data is None and (data := self._cached(name, check)) is None:
                data = await self._fetch(key, start, stop)
                check(data)
            self._cache.put(name, data)
            return data

    def _cached(self, name: Name, check: Callable[[bytes], object]) -> bytes | None:
        data = self._cache.load(name)
        if data is None:
            return None
        try:
            check(data)
        except DamagedShard:
            log.warning(
                "cached block %d of %s is damaged on this disk and is fetched again", name[1], name[0]
            )
            self._cache.drop(name)
            return None
        return data

    def _key(self, shard: Shard, suffix: str) -> str:
        return f"{manifest_folder(self._identity)}/{shard.name}.{suffix}"


async def gather(reads: Iterable[Coroutine[Any, Any, _T]]) -> list[_T]:
    """Results of concurrent reads, in order. If one fails, cancels the others and raises its error."""
    try:
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(read) for read in reads]
    except ExceptionGroup as failed:
        # Callers handle the errors of a read, not groups of them.
        raise failed.exceptions[0] from failed
    return [task.result() for task in running]


def decode(manifest: Manifest, span: Span, data: bytes, offset: int) -> Tokens:
    """The int64 tokens of `span` from `data`, the shard's bytes from `offset` on.

    Raises:
        DataError: if an id is outside the vocabulary, which means that the manifest is wrong.
    """
    dtype = manifest.dtype.numpy
    first = span.start * dtype.itemsize - offset
    tokens = np.frombuffer(data, dtype, count=span.stop - span.start, offset=first).astype(np.int64)
    if int(tokens.max()) >= manifest.tokenizer.vocab_size:
        raise DataError(f"{span.shard.name} holds an id outside its vocabulary: prepare the data again")
    return tokens
