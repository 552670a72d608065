"""A node's access to objects of a run by key, with presigned URLs from the orchestrator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from blake3 import blake3
from cachetools import TLRUCache

from iota.client.orchestrator import is_transient
from iota.protocol.frames import StoredObject
from iota.protocol.messages import Method, ObjectParts, ObjectReply, ObjectRequest
from iota.store import OUTAGES, ObjectExists, ObjectTooLarge, StoreError
from iota.store.part_urls import PartUrls
from iota.store.transfer import ObjectClient

TRANSFER_S: Final = 600.0
"""How long one object may take, retries included, beside its size by `_MIN_BYTES_PER_S`."""
_MIN_BYTES_PER_S: Final = 1 << 20
_MARGIN_S: Final = 60.0
"""A URL that expires sooner than this is requested anew, since a transfer needs time."""
_MAX_URLS: Final = 4096
"""URLs that are kept; the least recently used one goes first."""


class ObjectDiffers(StoreError):
    """An object's bytes do not have the announced digest."""


def is_outage(error: Exception) -> bool:
    """Whether an error of a transfer is an outage, which ends by itself or by an operator: retry for long."""
    return isinstance(error, OUTAGES) or is_transient(error)


class UrlSource(Protocol):
    """The source of presigned URLs: `OrchestratorClient`, or a fake in tests."""

    async def objects(self, request: ObjectRequest) -> ObjectReply:
        """A presigned URL for one key. Raises Problem for a refusal."""


class RunObjects:
    """PUT and GET of objects by key. URLs for GET are reused until they are about to expire.

    Every method raises StoreError (such as ObjectDiffers) or Problem. `url` is a presigned URL that came with
    an event; without one it is requested.
    """

    def __init__(self, urls: UrlSource, store: ObjectClient) -> None:
        self._urls, self._store = urls, store
        self._known: TLRUCache[str, ObjectReply, float] = TLRUCache(
            _MAX_URLS, ttu=lambda key, reply, now: reply.expires - _MARGIN_S, timer=time.time
        )

    async def put(
        self, key: str, data: bytes, url: str | None = None, *, within_s: float = TRANSFER_S
    ) -> StoredObject:
        """Store `data`. Objects are immutable: one that exists under the key is compared with `data`.

        Raises ObjectExists where it has other bytes.
        """
        stored = StoredObject(key=key, digest=blake3(data).hexdigest(), size=len(data))
        parts = None
        if url is None:
            reply = await self._urls.objects(_asking_to_put(stored))
            url, parts = reply.url, reply.parts
        if parts is not None:
            created = await self._put_parts(stored, data, parts, within_s)
        else:
            created = await self._store.put(url, data, _time_for(len(data), within_s))
        if not created:
            await self._compare(stored, within_s)
        return stored

    async def _put_parts(
        self, stored: StoredObject, data: bytes, parts: ObjectParts, within_s: float
    ) -> bool:
        """Store an object in parts, and have it made of them. False if its key existed."""

        async def renew() -> PartUrls:
            again = (await self._urls.objects(_asking_to_put(stored))).parts
            if again is None:
                raise StoreError(f"{stored.key} is no longer stored in parts")
            return _part_urls(again)

        limit_s = _time_for(stored.size, within_s)
        upload = await self._store.put_parts(_part_urls(parts), data, limit_s, renew)
        return not (await self._urls.objects(_asking_to_put(stored, upload))).existed

    async def _compare(self, ours: StoredObject, within_s: float) -> None:
        """Raise ObjectExists unless the object under our key is ours."""
        try:
            found = await self.get(ours.key, ours.size, within_s=within_s)
        except ObjectTooLarge as error:
            raise ObjectExists(
                f"{ours.key} exists with other bytes, so ours are not stored: {error}"
            ) from error
        if (digest := blake3(found).hexdigest()) != ours.digest:
            raise ObjectExists(
                f"{ours.key} exists with other bytes, so ours are not stored: {len(found)} bytes of BLAKE3"
                f" {digest} lie there, ours are {ours.size} of {ours.digest}"
            )

    async def get(
        self, key: str, max_bytes: int, url: str | None = None, *, within_s: float = TRANSFER_S
    ) -> bytes:
        """The whole object, of at most `max_bytes`; unverified. A URL that expires meanwhile is replaced."""
        return await self._store.get(
            url or await self._url(key),
            max_bytes,
            _time_for(max_bytes, within_s),
            renew=lambda: self._new_url(key),
        )

    async def get_verified(self, stored: StoredObject, url: str | None = None) -> bytes:
        """An announced object. Raises ObjectDiffers where its digest is not the announced one."""
        data = await self.get(stored.key, stored.size, url)
        if blake3(data).hexdigest() != stored.digest:
            raise ObjectDiffers(f"{stored.key} holds other bytes than were announced")
        return data

    async def all_stored(self, parts: Sequence[StoredObject], urls: Mapping[str, str]) -> list[bytes]:
        """Several announced objects, fetched concurrently, in the given order; the first error is raised."""
        try:
            async with asyncio.TaskGroup() as tasks:
                reads = [tasks.create_task(self.get_verified(p, urls.get(p.key))) for p in parts]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed
        return [read.result() for read in reads]

    async def get_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of an object; unverified."""
        return await self._store.get(await self._url(key), stop - start, TRANSFER_S, (start, stop))

    async def _url(self, key: str) -> str:
        known = self._known.get(key)
        return await self._new_url(key) if known is None else known.url

    async def _new_url(self, key: str) -> str:
        reply = self._known[key] = await self._urls.objects(ObjectRequest(method=Method.GET, key=key))
        return reply.url


def _asking_to_put(stored: StoredObject, upload: str = "") -> ObjectRequest:
    return ObjectRequest(method=Method.PUT, key=stored.key, size=stored.size, upload=upload)


def _part_urls(parts: ObjectParts) -> PartUrls:
    return PartUrls(parts.upload, parts.part_bytes, parts.urls)


def _time_for(size: int, within_s: float) -> float:
    """Seconds that an object of `size` bytes may take, where a small one may take `within_s`."""
    return within_s + size / _MIN_BYTES_PER_S
