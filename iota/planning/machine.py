"""Memory and disk of this machine."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Machine:
    """What a machine has for the nodes of a run, in bytes: all of it, or what is free."""

    memory: int
    disk: int
    place: Path
    """The folder on that disk."""
    card: int | None = None
    """Memory of the accelerator; None where nodes compute on the CPU, in main memory."""

    @classmethod
    def whole(cls, place: Path, card: int | None = None) -> Machine:
        """All that this machine has, with the disk of `place`, which may not exist yet."""
        return cls(psutil.virtual_memory().total, shutil.disk_usage(existing(place)).total, place, card)

    @classmethod
    def free(cls, place: Path, card: int | None = None, held: int = 0) -> Machine:
        """What is free; `held` are the bytes that the nodes hold in `place` already."""
        free = shutil.disk_usage(existing(place)).free
        return cls(psutil.virtual_memory().available, free + held, place, card)


def usable_cores() -> int:
    """Cores that this process may run on; all of the machine where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def existing(place: Path) -> Path:
    """`place`, or the nearest folder above it that exists."""
    return next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
