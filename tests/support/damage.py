"""What a disk does to a file: cut short, one byte changed, emptied, gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path], None]


def truncated(path: Path) -> None:
    """The last third is missing."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def changed(path: Path) -> None:
    """One bit of the last byte but three is another, which in tensors is a low bit of a value."""
    data = bytearray(path.read_bytes())
    data[-4] ^= 1
    path.write_bytes(data)


def emptied(path: Path) -> None:
    """Nothing is left, as after a power cut before the content was synced."""
    path.write_bytes(b"")


def gone(path: Path) -> None:
    """The file is not there."""
    path.unlink()


DAMAGES: list[Damage] = [truncated, changed, emptied, gone]
