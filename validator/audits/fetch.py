"""Reading objects of the run; what cannot be had is EvidenceMissing, with the reason."""

from __future__ import annotations

from iota.client.run_objects import RunObjects, UrlSource
from iota.protocol.messages import StoredObject
from iota.store import StoreError
from iota.store.transfer import ObjectClient
from validator.core.results import EvidenceMissing


class Fetcher:
    """GET by key."""

    def __init__(self, urls: UrlSource, store: ObjectClient) -> None:
        self._objects = RunObjects(urls, store)
        self.piece = self._objects.piece
        """For the shard reader; errors of the store pass through."""

    async def get(self, key: str, max_bytes: int) -> bytes:
        """The whole object. Raises EvidenceMissing, saying what could not be had and why."""
        try:
            return await self._objects.get(key, max_bytes)
        except StoreError as error:
            raise EvidenceMissing(f"{key} cannot be had from the store: {error}") from error

    async def stored(self, stored: StoredObject, max_bytes: int) -> bytes:
        """An object that a record names, held against its digest. Raises EvidenceMissing."""
        if stored.size > max_bytes:
            raise EvidenceMissing(
                f"{stored.key} is recorded with {stored.size} bytes, at most {max_bytes} may be"
            )
        try:
            return await self._objects.stored(stored)
        except StoreError as error:
            raise EvidenceMissing(f"{stored.key} cannot be had from the store: {error}") from error
