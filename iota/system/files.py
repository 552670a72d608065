"""Descriptors of binary files, reads at an offset, and names that outlast a power cut."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

_BINARY: Final = getattr(os, "O_BINARY", 0)
"""Without it Windows translates line ends, and stops at a byte 26."""


def open_binary(path: Path) -> int:
    """A descriptor for reading. Raises OSError."""
    return os.open(path, os.O_RDONLY | _BINARY)


def read_at(descriptor: int, size: int, start: int) -> bytes:
    """At most `size` bytes from the offset `start`. A descriptor has one reader at a time. Raises OSError."""
    if sys.platform != "win32":
        return os.pread(descriptor, size, start)
    os.lseek(descriptor, start, os.SEEK_SET)
    return os.read(descriptor, size)


def sync_file(path: Path) -> None:
    """Wait until the file's content is on the disk. Raises OSError."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_names(folder: Path) -> None:
    """Wait until the names in a folder are on the disk. Raises OSError.

    Windows cannot open a folder, and NTFS writes names to its journal in their order.
    """
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
