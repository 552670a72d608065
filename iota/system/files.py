"""Descriptors of binary files, and reads at an offset."""

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
