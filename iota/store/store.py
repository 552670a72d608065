"""What an object store is: keys, errors, and the interface that holders of credentials use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class StoreError(Exception):
    """Something an object store refused or failed to do."""


class ObjectMissing(StoreError):
    """No object has this key."""


class ObjectExists(StoreError):
    """The key holds other bytes already; objects are created once and never overwritten."""


class ObjectTooLarge(StoreError):
    """The object is larger than the caller was ready to take."""


class StoreUnavailable(StoreError):
    """The store did not answer in time, or failed; the same request may succeed later."""


class StoreFull(StoreError):
    """The store has no room left; its operator must make some."""


class UrlRefused(StoreError):
    """The store refused the URL or the credentials: expired, or for another key, size or method."""


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a listing; `size` in bytes."""

    key: str
    size: int


class ObjectStore(Protocol):
    """A store as seen by whoever holds its credentials: the orchestrator, the swarm, data tools.

    Every method raises `ValueError` on a bad key, and `StoreUnavailable` when the store does not
    answer. Nodes never hold one: they get presigned URLs and use `ObjectClient`.
    """

    def presign_put(self, key: str, size: int, expires_s: float) -> str:
        """URL that creates `key` with exactly `size` bytes, for `expires_s` seconds. No I/O."""
        ...

    def presign_get(self, key: str, expires_s: float) -> str:
        """URL that reads `key`, for `expires_s` seconds. No I/O."""
        ...

    async def put(self, key: str, data: bytes) -> None:
        """Create `key`; do nothing if it holds the same bytes. Raises `ObjectExists` on others."""
        ...

    async def get(self, key: str) -> bytes:
        """The object's bytes. Raises `ObjectMissing`."""
        ...

    async def exists(self, key: str) -> bool: ...

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """Objects in the folder `prefix` ("" for all) and its folders, in order of key."""
        ...

    async def delete_prefix(self, prefix: str) -> int:
        """Delete every object in the folder `prefix`, which may not be ""; the number deleted."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...
