"""Client of the embedded store, for processes that hold its secret."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from functools import partial

from iota.http import read_bounded
from iota.objects.grammar import validate_key, validate_prefix
from iota.store.checks import Check
from iota.store.embedded_checks import check_embedded
from iota.store.embedded_signing import UrlOp, check_secret, signed_query
from iota.store.part_urls import PartUrls
from iota.store.store import GET_S, MAX_OBJECT, ObjectExists, ObjectInfo, StoreError, put_s
from iota.store.transfer import ObjectClient

DEADLINE_S = 60.0
"""Deadline of a request without a body; a GET has `GET_S`, a PUT `put_s`."""
_MAX_LISTING = 1 << 30
"""About ten million objects."""


class EmbeddedStore:
    """`ObjectStore` over HTTP. It signs its own URLs.

    Args:
        base_url: the server's address for this process.
        public_url: the server's address for other nodes, used in presigned URLs; `base_url` by default.
        now: the clock, in Unix seconds.

    Raises:
        ValueError: if the secret is too short.
    """

    def __init__(
        self,
        base_url: str,
        secret: bytes,
        *,
        public_url: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._base = base_url.rstrip("/")
        self._public = (public_url or base_url).rstrip("/")
        self._secret = check_secret(secret)
        self._now = now
        self._client = ObjectClient()

    @property
    def max_object(self) -> int:
        return MAX_OBJECT

    @property
    def max_expiry_s(self) -> float:
        return math.inf

    def presign_put(self, key: str, size: int, expires_s: float) -> str:
        if size < 0:
            raise ValueError(f"an object cannot have {size} bytes")
        return self._object_url(self._public, UrlOp.PUT, key, size, expires_s)

    def presign_get(self, key: str, expires_s: float) -> str:
        return self._object_url(self._public, UrlOp.GET, key, 0, expires_s)

    def in_parts(self, size: int) -> bool:
        return False  # one PUT of any size: a run that needs parts is one for an S3

    async def begin_parts(self, key: str, size: int, expires_s: float) -> PartUrls:
        raise StoreError("the embedded store takes objects whole")

    async def end_parts(self, key: str, size: int, upload: str) -> bool:
        raise StoreError("the embedded store takes objects whole")

    async def put(self, key: str, data: bytes) -> None:
        deadline_s = put_s(len(data))
        url = self._object_url(self._base, UrlOp.PUT, key, len(data), deadline_s)
        if not await self._client.put(url, data, deadline_s) and await self.get(key) != data:
            raise ObjectExists(f"{key} holds other bytes: objects are never overwritten")

    async def get(self, key: str, max_bytes: int = MAX_OBJECT) -> bytes:
        url = self._object_url(self._base, UrlOp.GET, key, 0, DEADLINE_S)
        return await self._client.get(url, max_bytes, GET_S)

    async def size(self, key: str) -> int | None:
        return await self._client.size(
            self._object_url(self._base, UrlOp.GET, key, 0, DEADLINE_S), DEADLINE_S
        )

    async def list(self, prefix: str) -> list[ObjectInfo]:
        folder = validate_prefix(prefix)
        raw = await self._client.request("GET", self._folder_url(UrlOp.LIST, folder), DEADLINE_S, _listing)
        return [ObjectInfo(key, size) for key, size in json.loads(raw)]

    async def delete_prefix(self, prefix: str) -> int:
        folder = validate_prefix(prefix)
        if not folder:
            raise ValueError("delete_prefix needs a folder: deleting the whole store is not offered")
        raw = await self._client.request("DELETE", self._folder_url(UrlOp.DELETE, folder), DEADLINE_S, _small)
        deleted = json.loads(raw)["deleted"]
        if not isinstance(deleted, int):
            raise StoreError(f"the store answered a deletion with {raw[:80]!r}")
        return deleted

    async def check(self, say: Callable[[Check], None] = lambda check: None) -> tuple[Check, ...]:
        return await check_embedded(self, self._client, say)

    async def adapt(self) -> tuple[Check, ...]:
        return ()

    async def close(self) -> None:
        await self._client.close()

    def _object_url(self, base: str, op: UrlOp, key: str, size: int, expires_s: float) -> str:
        validate_key(key)
        return f"{base}/o/{key}?{signed_query(self._secret, op, key, size, self._expiry(expires_s))}"

    def _folder_url(self, op: UrlOp, folder: str) -> str:
        query = signed_query(self._secret, op, folder, 0, self._expiry(DEADLINE_S))
        return f"{self._base}/folder/{folder}?{query}"

    def _expiry(self, expires_s: float) -> int:
        return math.ceil((self._now() + expires_s) * 1000)


_small = partial(read_bounded, max_bytes=1 << 16)
_listing = partial(read_bounded, max_bytes=_MAX_LISTING)
