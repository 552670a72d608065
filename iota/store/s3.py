"""Client of any S3 (AWS, R2, MinIO, Ceph, Swift), with credentials from boto3's own chain.

boto3 signs, lists, copies and deletes. Objects are read and written by `ObjectClient`, through URLs that are
signed here, so that they have the same bounds as everywhere else. `S3Modes` says how services differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Final

from cachetools import LRUCache

from iota.objects.grammar import validate_key, validate_prefix
from iota.store.checks import Check
from iota.store.part_urls import PartUrls, is_large, part_bytes, part_sizes
from iota.store.s3_api import S3Api
from iota.store.s3_modes import AWS, CreateOnce, Parts, S3Modes
from iota.store.s3_probe import probe
from iota.store.store import (
    GET_S,
    MAX_OBJECT,
    BucketMissing,
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    StoreError,
    put_s,
)
from iota.store.transfer import ObjectClient

MAX_PUT: Final = 5 << 30
"""S3's bound of an object that is stored, or copied, by one request."""
_TAKE_IN: Final = "take in"
_TAKE_S: Final = 4.0
"""Longest wait for a copy, which goes on by itself: who looks takes a store that is slower for away."""
_ENDED: Final = 4096
"""Completed uploads that are remembered, since an answer may be lost."""
_PART_URL_S: Final = 3600.0
"""Life of the URLs by which parts are stored with credentials."""
SIZE_S: Final = 60.0
"""Deadline of asking for an object's size."""
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
        self._busy: dict[str, asyncio.Task[int | None]] = {}
        """What is being made by credentials, by key: one at a time, whoever asks."""
        self._ended: LRUCache[str, str] = LRUCache(_ENDED)
        """Uploads that were completed, by key."""

    @property
    def modes(self) -> S3Modes:
        """How the service is used; `check` chooses it."""
        return self._api.modes

    @property
    def max_object(self) -> int:
        return MAX_PUT if self.modes.parts is Parts.NONE else MAX_OBJECT

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

    def in_parts(self, size: int) -> bool:
        return is_large(size) and self.modes.parts is not Parts.NONE

    async def begin_parts(self, key: str, size: int, expires_s: float) -> PartUrls:
        return await asyncio.to_thread(self._begin_parts, self._key(key), size, expires_s)

    async def end_parts(self, key: str, size: int, upload: str) -> bool:
        if self._ended.get(key) == upload:
            return True
        ended = await self._alone(key, f"{upload} {size}", lambda: self._end_parts(key, size, upload))
        return ended is not None

    async def put(self, key: str, data: bytes) -> None:
        if self.in_parts(len(data)):
            await self._put_parts(key, data)
            return
        deadline_s = put_s(len(data))
        url = self._api.put_url(self._key(key), len(data), deadline_s, once=not self._copies)
        with _bucket_named(self._bucket):
            there = self._copies and await self.size(key) is not None
            if there or not await self._objects.put(url, data, deadline_s):
                await self._compare(key, data)

    async def _put_parts(self, key: str, data: bytes) -> None:
        async def urls() -> PartUrls:
            return await self.begin_parts(key, len(data), _PART_URL_S)

        if await self.size(key) is None:
            upload = await self._objects.put_parts(await urls(), data, put_s(len(data)), urls)
            if await self.end_parts(key, len(data), upload):
                return
        await self._compare(key, data)

    async def _compare(self, key: str, data: bytes) -> None:
        if await self.get(key) != data:
            raise ObjectExists(f"{key} holds other bytes: objects are never overwritten")

    async def get(self, key: str, max_bytes: int = MAX_OBJECT) -> bytes:
        with _bucket_named(self._bucket):
            return await self._objects.get(self.presign_get(key, GET_S), max_bytes, GET_S)

    async def size(self, key: str) -> int | None:
        """As in `ObjectStore`. Without conditions, the first look takes in what a member has uploaded.

        An object that is being made is not there yet: its maker may ask for it to be looked at again.
        """
        if self._makes(key):
            return None
        found = await self._size(self._key(key))
        if self._makes(key):  # what was found may have been another object, a moment before
            return None
        if found is not None or not self._copies:
            return found
        try:
            async with asyncio.timeout(_TAKE_S):
                return await self._alone(key, _TAKE_IN, lambda: self._take_in(key))
        except TimeoutError:
            return None

    def _makes(self, key: str) -> bool:
        """Whether the object is being made of its parts."""
        busy = self._busy.get(key)
        return busy is not None and busy.get_name() != _TAKE_IN

    async def _alone(
        self, key: str, what: str, work: Callable[[], Coroutine[None, None, int | None]]
    ) -> int | None:
        """What comes of `work`, or of the same `what` on this key under way; other work ends first."""
        while (busy := self._busy.get(key)) is not None and busy.get_name() != what:
            await asyncio.wait([busy])
        if busy is None:
            busy = self._busy[key] = asyncio.create_task(work(), name=what)

            def ended(task: asyncio.Task[int | None]) -> None:
                del self._busy[key]
                if not task.cancelled():
                    task.exception()  # who asked may have gone

            busy.add_done_callback(ended)
        return await asyncio.shield(busy)  # it goes on without who asked: nothing else may begin meanwhile

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

    async def adapt(self) -> tuple[Check, ...]:
        return await self.check()

    async def close(self) -> None:
        for busy in self._busy.values():
            busy.cancel()
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
        return await self._objects.size(self._api.url("get_object", whole_key, SIZE_S), SIZE_S)

    async def _take_in(self, key: str) -> int | None:
        """Copy an upload to its key, which nobody has a URL to write to. Its size; None if there is none."""
        upload, target = self._incoming(key), self._key(key)
        found = await self._size(target)
        if found is not None or await self._size(upload) is None:
            return found
        await asyncio.to_thread(self._api.copy, upload, target)
        await asyncio.to_thread(self._api.delete_one, upload)
        return await self._size(target)

    def _begin_parts(self, whole_key: str, size: int, expires_s: float) -> PartUrls:
        upload = self._api.begin_upload(whole_key)
        urls = (
            self._api.url(
                "upload_part", whole_key, expires_s, UploadId=upload, PartNumber=number, ContentLength=each
            )
            for number, each in enumerate(part_sizes(size), 1)
        )
        return PartUrls(upload, part_bytes(size), tuple(urls))

    async def _end_parts(self, key: str, size: int, upload: str) -> int | None:
        """The size of the object that was made of its parts; None if there was another before."""
        whole_key, once = self._key(key), self.modes.parts is Parts.CONDITION
        try:
            parts = await asyncio.to_thread(self._api.parts, whole_key, upload)
            if [(part.number, part.size) for part in parts] != list(enumerate(part_sizes(size), 1)):
                raise StoreError(f"what was stored of {key} are not the parts of an object of {size} bytes")
            if await self._size(whole_key) is not None:
                await asyncio.to_thread(self._api.abort_upload, whole_key, upload)
                return None
            await asyncio.to_thread(self._api.complete_upload, whole_key, upload, parts, once=once)
        except ObjectExists:
            await asyncio.to_thread(self._api.abort_upload, whole_key, upload)
            return None
        except ObjectMissing:
            if await self._size(whole_key) != size:
                raise
            return None  # it was completed, by this upload or another
        self._ended[key] = upload
        return await self._size(whole_key)

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
        if self.modes.parts is not Parts.NONE:
            self._api.abort_uploads(self._prefix + folder)
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
