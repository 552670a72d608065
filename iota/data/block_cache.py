"""Blocks of shards kept on disk up to a number of bytes, the latest used also in memory."""

from __future__ import annotations

import logging
from pathlib import Path

from cachetools import LRUCache

from iota.data.blocks import BLOCK_BYTES
from iota.files import remove_unfinished, write_whole

log = logging.getLogger(__name__)

Name = tuple[str, int]
"""Shard and block; -1 is the shard's index."""


class BlockCache:
    """An LRU cache of blocks in `folder`, which it alone uses.

    What `load` returns from disk was not checked since it was read; `recall` and `keep` hold what was.

    Args:
        max_bytes: bound of the disk's part.
        memory_bytes: bound of the memory's part.
    """

    def __init__(self, folder: Path, max_bytes: int, memory_bytes: int) -> None:
        if max_bytes < BLOCK_BYTES:
            raise ValueError(f"a cache of {max_bytes} bytes holds no block: give at least {BLOCK_BYTES}")
        self._folder = folder
        self._memory: LRUCache[Name, bytes] = LRUCache(memory_bytes, getsizeof=len)
        self._disk = _Files(folder, max_bytes)

    def recall(self, name: Name) -> bytes | None:
        """A block from memory."""
        data = self._memory.get(name)
        if data is not None:
            self._disk.get(name)  # counts as a use there too
        return data

    def load(self, name: Name) -> bytes | None:
        """A block from disk; the caller checks it, and calls `keep` or `drop`."""
        if name not in self._disk:
            return None
        try:
            return self._disk.path(name).read_bytes()
        except OSError as error:
            log.warning("cached block %s is unreadable (%s) and will be fetched again", name, error)
            self.drop(name)
            return None

    def keep(self, name: Name, data: bytes) -> None:
        """Remember a checked block, in memory and on disk."""
        if len(data) <= self._memory.maxsize:
            self._memory[name] = data
        if self._disk.get(name) is None and len(data) <= self._disk.maxsize:
            self._write(name, data)

    def drop(self, name: Name) -> None:
        """Forget a block on disk."""
        self._disk.pop(name, None)
        self._disk.path(name).unlink(missing_ok=True)

    def _write(self, name: Name, data: bytes) -> None:
        try:
            write_whole(self._disk.path(name), data)
        except OSError as error:
            # The cache only saves time; the block itself is at hand.
            log.warning("the data cache cannot keep a block (%s): free some space in %s", error, self._folder)
        else:
            self._disk[name] = len(data)


class _Files(LRUCache[Name, int]):
    """Sizes of the blocks' files; those of an earlier process count as used in the order of their writing."""

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
        """Remove the one that was used least recently, with its file."""
        name, size = super().popitem()
        self.path(name).unlink(missing_ok=True)
        return name, size
