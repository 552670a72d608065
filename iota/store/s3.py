"""Client of any S3 (AWS, R2, MinIO, Ceph, Swift), with credentials from boto3's own chain.

boto3 signs, lists, copies and deletes. Objects are read and written by `ObjectClient`, through URLs that are
signed here, so that they have the same bounds as everywhere else. `S3Modes` says how services differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from iota.objects.grammar import validate_key, validate_prefix
from iota.store.checks import Check
from iota.store.s3_api import S3Api
from iota.store.s3_modes import AWS, CreateOnce, S3Modes
from iota.store.s3_probe import probe
from iota.store.store import (
    GET_S,
    MAX_OBJECT,
    BucketMissing,
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    put_s,
)
from iota.store.transfer import ObjectClient

MAX_PUT: Final = 5 << 30
"""S3's bound of an object that is stored, or copied, by one request. Uploads in parts are not offered."""
HEAD_S: Final = 60.0
"""Deadline of a HEAD."""
INCOMING: Final = ".incoming/"
"""Folder of what members upload where a service has no conditions. No key of an object begins with a dot."""
Listing = list[ObjectInfo]
"""An alias because the class has a method `list`."""


class S3Store:
    """`ObjectStore` in one bucket, below `prefix`. boto3 blocks, so calls run in worker threads.

    `modes` are what `check` found, or would find.

    Raises:
        ValueError: if boto3 has no credentials or no region to sign with.
    """

    def __init__(
        self,
        bucket: str,
        endpoint_url: str | None = None,
        region: str | None = None,
        prefix: str = "",
        modes: S3Modes = AWS,
    ) -> None:
        self._bucket = bucket
        self._prefix = validate_prefix(prefix)
        self._api = S3Api(bucket, endpoint_url, region)
        self._api.modes = modes
        self._objects = ObjectClient()
        self._taken: dict[str, asyncio.Task[int | None]] = {}
        """Uploads that are being taken in, by key: one at a time, whoever asks."""

    @property
    def modes(self) -> S3Modes:
        """How the service is used; `check` chooses it."""
        return self._api.modes

    @property
    def max_object(self) -> int:
        return MAX_PUT

    @property
    def max_expiry_s(self) -> float:
        return float(self.modes.max_expiry_s)

    def presign_put(self, key: str, size: int, expires_s: float) -> str:
        if size < 0:
            raise ValueError(f"an object cannot have {size} bytes")
        target = self._incoming(key) if self._copies else self._key(key)
        return self._api.put_url(target, size, expires_s, once=not self._copies)

    def presign_get(self, key: str, expires_s: float) -> str:
        return self._api.url("get_object", self._key(key), expires_s)

    async def put(self, key: str, data: bytes) -> None:
        deadline_s = put_s(len(data))
        url = self._api.put_url(self._key(key), len(data), deadline_s, once=not self._copies)
        with _bucket_named(self._bucket):
            there = self._copies and await self.size(key) is not None
            if there or not await self._objects.put(url, data, deadline_s):
                await self._compare(key, data)

    async def _compare(self, key: str, data: bytes) -> None:
        if await self.get(key) != data:
            raise ObjectExists(f"{key} holds other bytes: objects are never overwritten")

    async def get(self, key: str, max_bytes: int = MAX_OBJECT) -> bytes:
        with _bucket_named(self._bucket):
            return await self._objects.get(self.presign_get(key, GET_S), max_bytes, GET_S)

    async def size(self, key: str) -> int | None:
        """As in `ObjectStore`. Without conditions, the first look takes in what a member has uploaded."""
        found = await self._size(self._key(key))
        if found is not None or not self._copies:
            return found
        taking = self._taken.get(key)
        if taking is None:
            taking = self._taken[key] = asyncio.create_task(self._take_in(key))

            def ended(task: asyncio.Task[int | None]) -> None:
                del self._taken[key]
                if not task.cancelled():
                    task.exception()  # who asked may have gone

            taking.add_done_callback(ended)
        return await asyncio.shield(taking)  # a second copy must not begin while one is under way

    async def list(self, prefix: str) -> list[ObjectInfo]:
        return await asyncio.to_thread(self._list, validate_prefix(prefix))

    async def delete_prefix(self, prefix: str) -> int:
        folder = validate_prefix(prefix)
        if not folder:
            raise ValueError("delete_prefix needs a folder: deleting the whole store is not offered")
        return await asyncio.to_thread(self._delete, folder)

    async def check(self, say: Callable[[Check], None] = lambda check: None) -> tuple[Check, ...]:
        self._api.modes, checks = await probe(self._api, self._prefix, say)
        return checks

    async def close(self) -> None:
        for taking in self._taken.values():
            taking.cancel()
        await self._objects.close()
        await asyncio.to_thread(self._api.client.close)

    @property
    def _copies(self) -> bool:
        return self.modes.create_once is CreateOnce.COPY

    def _key(self, key: str) -> str:
        return self._prefix + validate_key(key)

    def _incoming(self, key: str) -> str:
        return f"{self._prefix}{INCOMING}{validate_key(key)}"

    async def _size(self, whole_key: str) -> int | None:
        return await self._objects.size(self._api.url("head_object", whole_key, HEAD_S), HEAD_S)

    async def _take_in(self, key: str) -> int | None:
        """Copy an upload to its key, which nobody has a URL to write to. Its size; None if there is none."""
        upload, target = self._incoming(key), self._key(key)
        found = await self._size(target)
        if found is not None or await self._size(upload) is None:
            return found
        await asyncio.to_thread(self._api.copy, upload, target)
        await asyncio.to_thread(self._api.delete_one, upload)
        return await self._size(target)

    def _list(self, folder: str) -> Listing:
        found = (
            ObjectInfo(item.key.removeprefix(self._prefix), item.size)
            for item in self._api.list(self._prefix + folder)
        )
        return sorted(
            (item for item in found if not item.key.startswith(INCOMING)), key=lambda item: item.key
        )

    def _delete(self, folder: str) -> int:
        keys = [self._prefix + item.key for item in self._list(folder)]
        uploads = self._api.list(f"{self._prefix}{INCOMING}{folder}") if self._copies else []
        self._api.delete([*keys, *(item.key for item in uploads)])
        return len(keys)


@contextmanager
def _bucket_named(bucket: str) -> Iterator[None]:
    """Tell a missing bucket from a missing object: S3 answers both with 404."""
    try:
        yield
    except ObjectMissing as error:
        if "NoSuchBucket" not in str(error):
            raise
        raise BucketMissing(f"there is no bucket {bucket}: create the bucket first ({error})") from error
