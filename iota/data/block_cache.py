"""Blocks of shards kept on disk up to a number of bytes, the latest used also in memory."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from pathlib import Path

from iota.data.blocks import BLOCK_BYTES

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
        self._max_bytes = max_bytes
        self._memory_bytes = memory_bytes
        self._memory: OrderedDict[Name, bytes] = OrderedDict()
        self._memory_used = 0
        self._disk: OrderedDict[Name, int] = OrderedDict()
        self._disk_used = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._scan()

    def recall(self, name: Name) -> bytes | None:
        """A block from memory."""
        data = self._memory.get(name)
        if data is not None:
            self._memory.move_to_end(name)
            if name in self._disk:
                self._disk.move_to_end(name)
        return data

    def load(self, name: Name) -> bytes | None:
        """A block from disk; the caller checks it, and calls `keep` or `drop`."""
        if name not in self._disk:
            return None
        try:
            return self._path(name).read_bytes()
        except OSError as error:
            log.warning("cached block %s is unreadable (%s) and will be fetched again", name, error)
            self.drop(name)
            return None

    def keep(self, name: Name, data: bytes) -> None:
        """Remember a checked block, in memory and on disk."""
        if name not in self._memory:
            self._memory[name] = data
            self._memory_used += len(data)
            while self._memory_used > self._memory_bytes:
                self._memory_used -= len(self._memory.popitem(last=False)[1])
        if name in self._disk:
            self._disk.move_to_end(name)
        else:
            self._write(name, data)

    def drop(self, name: Name) -> None:
        """Forget a block on disk."""
        self._disk_used -= self._disk.pop(name, 0)
        self._path(name).unlink(missing_ok=True)

    def _write(self, name: Name, data: bytes) -> None:
        path = self._path(name)
        temporary = path.with_suffix(".new")
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except OSError as error:
            # The cache only saves time; the block itself is at hand.
            log.warning("the data cache cannot keep a block (%s): free some space in %s", error, self._folder)
            temporary.unlink(missing_ok=True)
            return
        self._disk[name] = len(data)
        self._disk_used += len(data)
        while self._disk_used > self._max_bytes:
            self.drop(next(iter(self._disk)))

    def _path(self, name: Name) -> Path:
        return self._folder / f"{name[0]}.{name[1]}.block"

    def _scan(self) -> None:
        """Take over what an earlier process kept, the oldest first."""
        for leftover in self._folder.glob("*.new"):
            leftover.unlink()
        found = [(path.stat(), path) for path in self._folder.glob("shard-*.*.block")]
        for status, path in sorted(found, key=lambda item: item[0].st_mtime_ns):
            shard, block, _ = path.name.split(".")
            self._disk[shard, int(block)] = status.st_size
            self._disk_used += status.st_size
        while self._disk_used > self._max_bytes:
            self.drop(next(iter(self._disk)))
