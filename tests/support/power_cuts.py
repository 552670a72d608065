"""What a power cut leaves of a folder: of contents and names those alone that were synced."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

Names = dict[int, dict[str, int]]
"""By inode of a folder: the inodes of what it holds, by name."""


@dataclass
class PowerCuts:
    """Syncs of files and folders in this process, from an all synced `root` on.

    It is the least that POSIX promises: of a file that was never synced only the name may be there, and a
    change of names only from the sync of their folder on. Most file systems keep more.
    """

    root: Path
    cuts: list[tuple[Names, dict[int, bytes]]] = field(default_factory=list)
    """What the disk holds after each sync; the first one is the beginning."""
    _names: Names = field(default_factory=dict)
    _contents: dict[int, bytes] = field(default_factory=dict)
    _kept: list[int] = field(default_factory=list)
    """Descriptors, so that no inode is used again."""

    @contextmanager
    def following(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[PowerCuts]:
        """Follow the syncs inside the block."""
        for folder, _, files in os.walk(self.root):
            for path in (folder, *(os.path.join(folder, name) for name in files)):
                self._take(os.open(path, os.O_RDONLY))
        self.cuts.append((dict(self._names), dict(self._contents)))
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", self._synced)
            yield self
        for descriptor in self._kept:
            os.close(descriptor)

    def _synced(self, descriptor: int) -> None:
        self._take(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY))
        self.cuts.append((dict(self._names), dict(self._contents)))

    def _take(self, descriptor: int) -> None:
        self._kept.append(descriptor)
        found = os.fstat(descriptor)
        if stat.S_ISDIR(found.st_mode):
            names = {entry.name: entry.inode() for entry in os.scandir(descriptor)}
            self._names[found.st_ino] = names
        else:
            self._contents[found.st_ino] = os.pread(descriptor, found.st_size, 0)

    def left_by(self, cut: int, target: Path) -> None:
        """Make `target` as the disk is after a power cut that comes after sync number `cut`."""
        names, contents = self.cuts[cut]

        def make(path: Path, inode: int) -> None:
            if inode not in names:
                path.write_bytes(contents.get(inode, b""))
                return
            path.mkdir()
            for name, child in names[inode].items():
                make(path / name, child)

        make(target, self.root.stat().st_ino)
