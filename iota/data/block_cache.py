"""LRU cache of shard blocks: on disk up to a number of bytes, the most recent ones in memory too."""

from __future__ import annotations

import logging
from pathlib import Path

from cachetools import LRUCache

from iota.data.blocks import BLOCK_BYTES
from iota.files import remove_unfinished, write_whole

log = logging.getLogger(__name__)

Name = tuple[str, int]
"""Shard and block number; block -1 is the shard's index."""


class BlockCache:
    """An LRU cache of blocks in `folder`, which no other process may use.

    `get` and `put` handle verified blocks. `load` reads from disk, where a block may have been damaged since
    it was written.

    Args:
        max_bytes: bound of the files.
        memory_bytes: bound of the copies in memory.

    Raises:
        ValueError: if `max_bytes` is less than one block.
    """

    def __init__(self, folder: Path, max_bytes: int, memory_bytes: int) -> None:
        if max_bytes < BLOCK_BYTES:
            raise ValueError(f"a cache of {max_bytes} bytes holds no block: give at least {BLOCK_BYTES}")
        self._folder = folder
        self._memory: LRUCache[Name, bytes] = LRUCache(memory_bytes, getsizeof=len)
        self._disk = _Files(folder, max_bytes)

    def get(self, name: Name) -> bytes | None:
        """A verified block from memory, or None. Counts as a use of its file as well."""
        data = self._memory.get(name)
        if data is not None:
            self._disk.get(name)
        return data

    def load(self, name: Name) -> bytes | None:
        """An unverified block from disk, or None. The caller verifies it, and calls `put` or `drop`."""
        if name not in self._disk:
            return None
        try:
            return self._disk.path(name).read_bytes()
        except OSError as error:
            log.warning("cached block %s is unreadable (%s) and will be fetched again", name, error)
            self.drop(name)
            return None

    def put(self, name: Name, data: bytes) -> None:
        """Store a verified block in memory and on disk, and evict the least recently used ones."""
        if len(data) <= self._memory.maxsize:
            self._memory[name] = data
        if self._disk.get(name) is None and len(data) <= self._disk.maxsize:
            self._write(name, data)

    def drop(self, name: Name) -> None:
        """Delete a block's file."""
        self._disk.pop(name, None)
        self._disk.path(name).unlink(missing_ok=True)

    def _write(self, name: Name, data: bytes) -> None:
        try:
            write_whole(self._disk.path(name), data)
        except OSError as error:
            # Not an error of the read: the caller has the block, the cache only saves a later fetch.
            log.warning("the data cache cannot keep a block (%s): free some space in %s", error, self._folder)
        else:
            self._disk[name] = len(data)


class _Files(LRUCache[Name, int]):
    """Size of each block's file, by name. Files of an earlier process are ordered by their mtime."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        super().__init__(max_bytes, getsizeof=lambda size: size)
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder)
        found = [(path.stat(), path) for path in folder.glob("shard-*.*.block")]
        for status, path in sorted(found, key=lambda item: item[0].st_mtime_ns):
            shard, block, _ = path.name.split(".")
            if status.st_size <= max_bytes:
                self[shard, int(block)] = status.st_size
            else:
                path.unlink()

    def path(self, name: Name) -> Path:
        return self._folder / f"{name[0]}.{name[1]}.block"

    def popitem(self) -> tuple[Name, int]:
        """Evict the least recently used entry and delete its file."""
        name, size = super().popitem()
        self.path(name).unlink(missing_ok=True)
        return name, size
