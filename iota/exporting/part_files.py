"""Fetches the parts of a stored base into files, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from iota.exporting.objects import Objects
from iota.protocol.frames import StoredObject
from iota.protocol.records import BaseRecord
from iota.store import ObjectMissing

_AT_ONCE: Final = 4
"""Parts in memory at once; one has 32 MiB by default."""


async def part_files(
    objects: Objects, record: BaseRecord, folder: Path, told: Callable[[float], None]
) -> list[Path]:
    """Verified files of a base's parts, in order; `told(share)` hears how much is done.

    Raises StoreError: ObjectMissing where the base was deleted meanwhile.
    """
    limit, size, done = asyncio.Semaphore(_AT_ONCE), sum(part.size for part in record.parts), 0
    told(0)

    async def fetch(part: StoredObject) -> Path:
        nonlocal done
        async with limit:
            path = await objects.file(part, folder)
        done += part.size
        told(done / size)
        return path

    try:
        async with asyncio.TaskGroup() as tasks:
            reads = [tasks.create_task(fetch(part)) for part in record.parts]
    except ExceptionGroup as failed:
        error = failed.exceptions[0]
        if isinstance(error, ObjectMissing):
            raise ObjectMissing(
                f"the base of epoch {record.epoch} is no longer stored, since the run went on: take the"
                " newest one"
            ) from error
        raise error from failed
    return [read.result() for read in reads]
