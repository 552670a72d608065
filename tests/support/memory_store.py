"""An object store in memory, for servers whose store is not what a test is about; it may be away."""

from __future__ import annotations

from collections.abc import Callable

from iota.objects.grammar import validate_key, validate_prefix
from iota.store import (
    EmbeddedStore,
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    ObjectTooLarge,
    StoreUnavailable,
)
from iota.store.checks import Check
from iota.store.part_urls import PartUrls
from iota.store.store import MAX_OBJECT

Listing = list[ObjectInfo]


class MemoryStore:
    """`ObjectStore` with the objects in `objects`. Its URLs are those of an embedded store at `url`."""

    def __init__(self, url: str, secret: bytes) -> None:
        self._urls = EmbeddedStore(url, secret)
        self.objects: dict[str, bytes] = {}
        self.away = False
        self.looks: list[str] = []
        """Keys whose size was asked for, or that were read."""

    @property
    def max_object(self) -> int:
        return MAX_OBJECT

    @property
    def max_expiry_s(self) -> float:
        return self._urls.max_expiry_s

    def presign_put(self, key: str, size: int, expires_s: float) -> str:
        return self._urls.presign_put(key, size, expires_s)

    def presign_get(self, key: str, expires_s: float) -> str:
        return self._urls.presign_get(key, expires_s)

    def in_parts(self, size: int) -> bool:
        return False

    async def begin_parts(self, key: str, size: int, expires_s: float) -> PartUrls:
        raise NotImplementedError

    async def end_parts(self, key: str, size: int, upload: str) -> bool:
        raise NotImplementedError

    async def put(self, key: str, data: bytes) -> None:
        self._check_there()
        if self.objects.setdefault(validate_key(key), data) != data:
            raise ObjectExists(key)

    async def get(self, key: str, max_bytes: int = MAX_OBJECT) -> bytes:
        self._check_there()
        self.looks.append(key)
        if key not in self.objects:
            raise ObjectMissing(key)
        if len(self.objects[key]) > max_bytes:
            raise ObjectTooLarge(key)
        return self.objects[key]

    async def size(self, key: str) -> int | None:
        self._check_there()
        self.looks.append(key)
        return len(self.objects[key]) if key in self.objects else None

    async def list(self, prefix: str) -> Listing:
        self._check_there()
        folder = validate_prefix(prefix)
        return [ObjectInfo(k, len(v)) for k, v in sorted(self.objects.items()) if k.startswith(folder)]

    async def delete_prefix(self, prefix: str) -> int:
        found = await self.list(prefix)
        for item in found:
            del self.objects[item.key]
        return len(found)

    async def check(self, say: Callable[[Check], None] = lambda check: None) -> tuple[Check, ...]:
        self._check_there()
        return ()

    async def adapt(self) -> tuple[Check, ...]:
        return ()

    async def close(self) -> None:
        await self._urls.close()

    def _check_there(self) -> None:
        if self.away:
            raise StoreUnavailable("the store is away")
