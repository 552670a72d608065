"""The interface of an object store for processes with credentials, and its errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from iota.store.checks import Check
from iota.store.part_urls import PartUrls

MAX_OBJECT = 1 << 37
"""Largest object, in bytes (128 GiB): weights and two moments of 11 billion parameters in fp32."""

GET_S = 600.0
"""Deadline of reading an object with credentials."""
_PUT_S = 60.0
_MIN_BYTES_PER_S = 1 << 20


def put_s(size: int) -> float:
    """Deadline (seconds) of writing an object of `size` bytes with credentials."""
    return _PUT_S + size / _MIN_BYTES_PER_S


class StoreError(Exception):
    """An object store refused a request or failed."""


class ObjectMissing(StoreError):
    """There is no object with this key."""


class ObjectExists(StoreError):
    """The key exists with other bytes. Objects are created once and never overwritten."""


class ObjectTooLarge(StoreError):
    """The object is larger than the caller's bound."""


class StoreUnavailable(StoreError):
    """The store failed or did not answer in time. The same request may succeed later."""


class StoreFull(StoreError):
    """The store's disk is full. Its operator must free some space."""


class UrlRefused(StoreError):
    """The store refused the URL or the credentials: expired, or for another key, size or method."""


class BucketMissing(StoreError):
    """The store has no bucket of the name that its client was given."""


OUTAGES: Final = (StoreUnavailable, StoreFull, UrlRefused, BucketMissing)
"""Errors that say nothing about the object that was asked for: they end by themselves or by an operator. Any
other error is about that object alone, and another try gives it again."""


@dataclass(frozen=True)
class ObjectInfo:
    """An entry of a listing; `size` is in bytes."""

    key: str
    size: int


class ObjectStore(Protocol):
    """A store for processes with credentials: the orchestrator, the swarm and the data tools.

    Every method raises `ValueError` for an invalid key, and `StoreUnavailable` if the store does not
    answer. Nodes have no credentials: they receive presigned URLs and use `ObjectClient`.
    """

    @property
    def max_object(self) -> int:
        """Bytes of the largest object that can be stored."""
        ...

    @property
    def max_expiry_s(self) -> float:
        """Longest life of a presigned URL, in seconds; one for longer lives as long as that."""
        ...

    def presign_put(self, key: str, size: int, expires_s: float) -> str:
        """URL that creates `key` with exactly `size` bytes, valid for `expires_s` seconds. No I/O.

        What is stored by it may be read once `size` has found it, and is never changed from then on.
        """
        ...

    def presign_get(self, key: str, expires_s: float) -> str:
        """URL that reads `key`, valid for `expires_s` seconds. No I/O."""
        ...

    def in_parts(self, size: int) -> bool:
        """Whether an object of `size` bytes is to be stored in parts, and not by one URL."""
        ...

    async def begin_parts(self, key: str, size: int, expires_s: float) -> PartUrls:
        """URLs for the parts of `key`, valid for `expires_s` seconds; of the same upload if asked again."""
        ...

    async def end_parts(self, key: str, size: int, upload: str) -> bool:
        """Create `key` of its parts. False if it existed, with these or other bytes. May be repeated.

        Raises:
            ObjectMissing: there is no such upload.
            StoreError: what was stored are not the parts of an object of `size` bytes.
        """
        ...

    async def put(self, key: str, data: bytes) -> None:
        """Create `key`. Does nothing if it has the same bytes, raises `ObjectExists` if it has others."""
        ...

    async def get(self, key: str, max_bytes: int = MAX_OBJECT) -> bytes:
        """The object's bytes. Raises `ObjectMissing`, and `ObjectTooLarge` for more than `max_bytes`."""
        ...

    async def size(self, key: str) -> int | None:
        """Size of the object in bytes, without reading it; None if it does not exist."""
        ...

    async def list(self, prefix: str) -> list[ObjectInfo]:
        """Objects in the folder `prefix` ("" for all) and its subfolders, ordered by key."""
        ...

    async def delete_prefix(self, prefix: str) -> int:
        """Delete all objects in the folder `prefix`, which may not be "". Returns their number."""
        ...

    async def check(self, say: Callable[[Check], None] = ...) -> tuple[Check, ...]:
        """Try what a run needs of the store, and choose how to use it.

        `say` is given each check when it is made. What it stores it deletes.

        Raises:
            BucketMissing, UrlRefused, StoreUnavailable: nothing can be found out.
        """
        ...

    async def adapt(self) -> tuple[Check, ...]:
        """Choose how to use the store before anything is written: by `check`, if there is a choice."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...
