"""Reading objects of the run from the store by key: the orchestrator gives a URL for each."""

from __future__ import annotations

import time
from typing import Final, Protocol

from blake3 import blake3

from iota.protocol.messages import Method, ObjectReply, ObjectRequest, StoredObject
from iota.store import StoreError
from iota.store.transfer import ObjectClient
from validator.errors import Missing

FETCH_S: Final = 120.0
_MARGIN_S: Final = 60.0
"""A URL this close to its expiry is asked for anew."""
_MOST_URLS: Final = 4096


class UrlSource(Protocol):
    """What gives presigned URLs: `OrchestratorClient`."""

    async def objects(self, request: ObjectRequest) -> ObjectReply: ...


class Fetcher:
    """GET by key, with URLs remembered while they are valid."""

    def __init__(self, urls: UrlSource, store: ObjectClient) -> None:
        self._urls, self._store = urls, store
        self._known: dict[str, ObjectReply] = {}

    async def get(self, key: str, max_bytes: int) -> bytes:
        """The whole object. Raises Missing, saying what could not be had and why."""
        try:
            return await self._store.get(await self._url(key), max_bytes, FETCH_S)
        except StoreError as error:
            raise Missing(f"{key} cannot be had from the store: {error}") from error

    async def piece(self, key: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop), for the shard reader; errors of the store pass through."""
        return await self._store.get(await self._url(key), stop - start, FETCH_S, (start, stop))

    async def stored(self, stored: StoredObject, max_bytes: int) -> bytes:
        """An object that a record names, held against its digest. Raises Missing."""
        if stored.size > max_bytes:
            raise Missing(f"{stored.key} is recorded with {stored.size} bytes, at most {max_bytes} may be")
        data = await self.get(stored.key, stored.size)
        if blake3(data).hexdigest() != stored.digest:
            raise Missing(f"{stored.key} holds other bytes than its record says")
        return data

    async def _url(self, key: str) -> str:
        known = self._known.get(key)
        if known is None or known.expires < time.time() + _MARGIN_S:
            known = await self._urls.objects(ObjectRequest(method=Method.GET, key=key))
            if len(self._known) >= _MOST_URLS:
                self._known.clear()
            self._known[key] = known
        return known.url
