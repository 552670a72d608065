"""Where an export gets objects from: a folder, or presigned URLs. Content with a digest is verified."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from blake3 import blake3

from iota.client.run_objects import TRANSFER_S, ObjectDiffers
from iota.data import directory_fetch
from iota.files import write_whole
from iota.protocol.frames import StoredObject
from iota.store import ObjectMissing, ObjectTooLarge
from iota.store.transfer import ObjectClient

UrlFor = Callable[[str], Awaitable[str]]
"""key -> a presigned URL that reads it."""


class Objects(Protocol):
    """Reads objects of a run's store. Every method raises StoreError, such as ObjectMissing."""

    downloads: bool
    """Whether `file` writes a copy of the object."""

    async def get(self, key: str, max_bytes: int) -> bytes:
        """The whole object, of at most `max_bytes`; unverified."""

    async def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of an object; unverified."""

    async def file(self, stored: StoredObject, folder: Path) -> Path:
        """A file with the verified bytes of an announced object; a download is written to `folder`.

        Raises ObjectDiffers where the digest is another.
        """


class FolderObjects:
    """The objects below `root`, the folder of an embedded store on this machine."""

    downloads = False

    def __init__(self, root: Path) -> None:
        self._root = root

    async def get(self, key: str, max_bytes: int) -> bytes:
        return await asyncio.to_thread(self._read, key, max_bytes)

    async def get_range(self, key: str, start: int, stop: int) -> bytes:
        return await directory_fetch(self._root)(key, start, stop)

    async def file(self, stored: StoredObject, folder: Path) -> Path:
        _check(stored, await self.get(stored.key, stored.size))
        return self._root / stored.key

    def _read(self, key: str, max_bytes: int) -> bytes:
        path = self._root / key
        try:
            with path.open("rb") as file:
                data = file.read(max_bytes + 1)
        except OSError as error:
            raise ObjectMissing(f"{path} cannot be read ({error.strerror})") from error
        if len(data) > max_bytes:
            raise ObjectTooLarge(f"{path} has more than {max_bytes} bytes")
        return data


class UrlObjects:
    """Objects by presigned URL. What a killed export has downloaded is used again."""

    downloads = True

    def __init__(self, url_for: UrlFor, client: ObjectClient) -> None:
        self._url_for, self._client = url_for, client

    async def get(self, key: str, max_bytes: int) -> bytes:
        return await self._client.get(await self._url_for(key), max_bytes, TRANSFER_S)

    async def get_range(self, key: str, start: int, stop: int) -> bytes:
        url = await self._url_for(key)
        return await self._client.get(url, stop - start, TRANSFER_S, (start, stop))

    async def file(self, stored: StoredObject, folder: Path) -> Path:
        path = folder / stored.digest
        if not await asyncio.to_thread(_holds, path, stored):
            data = await self.get(stored.key, stored.size)
            _check(stored, data)
            await asyncio.to_thread(write_whole, path, data)
        return path


def _holds(path: Path, stored: StoredObject) -> bool:
    """Whether an earlier download is whole and undamaged."""
    return (
        path.exists()
        and path.stat().st_size == stored.size
        and blake3(path.read_bytes()).hexdigest() == stored.digest
    )


def _check(stored: StoredObject, data: bytes) -> None:
    if blake3(data).hexdigest() != stored.digest:
        raise ObjectDiffers(f"{stored.key} holds other bytes than were announced")
