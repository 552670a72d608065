"""Client of any S3 (AWS, R2, MinIO, Ceph), with credentials from boto3's own chain.

boto3 signs, lists and deletes. Objects are read and written by `ObjectClient`, through URLs that are signed
here, so that they have the same bounds as everywhere else.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from iota.console.counts import counted
from iota.http.client import CONNECT_S, READ_S
from iota.http.hosts import certificates_file, proxy_for
from iota.objects.grammar import validate_key, validate_prefix
from iota.store.store import (
    GET_S,
    MAX_OBJECT,
    BucketMissing,
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
    UrlRefused,
    put_s,
)
from iota.store.transfer import ObjectClient

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MAX_PUT = 5 << 30
"""S3's bound of an object that is stored by one request. Uploads in parts are not offered."""
MAX_EXPIRY_S = 7 * 24 * 3600
"""SigV4's bound."""
HEAD_S = 60.0
"""Deadline of a HEAD."""
_DELETE_BATCH = 1000
"""S3's bound on the keys of one request."""
Listing = list[ObjectInfo]
"""An alias because the class has a method `list`."""


class S3Store:
    """`ObjectStore` in one bucket, below `prefix`. boto3 blocks, so calls run in worker threads.

    Raises:
        ValueError: if boto3 has no credentials or no region to sign with.
    """

    def __init__(
        self, bucket: str, endpoint_url: str | None = None, region: str | None = None, prefix: str = ""
    ) -> None:
        self._bucket = bucket
        self._prefix = validate_prefix(prefix)
        self._client = _open_client(endpoint_url, region)
        self._objects = ObjectClient()

    @property
    def max_object(self) -> int:
        return MAX_PUT

    def presign_put(self, key: str, size: int, expires_s: float) -> str:
        if size < 0:
            raise ValueError(f"an object cannot have {size} bytes")
        # Both headers are signed, so the uploader must send exactly these values.
        with _typed_errors(key):
            return self._client.generate_presigned_url(
                "put_object",
                Params={
                    "Bucket": self._bucket,
                    "Key": self._key(key),
                    "ContentLength": size,
                    "IfNoneMatch": "*",
                },
                ExpiresIn=_expiry(expires_s),
            )

    def presign_get(self, key: str, expires_s: float) -> str:
        with _typed_errors(key):
            return self._client.generate_presigned_url(
                "get_object",
                Params={"Bucket": self._bucket, "Key": self._key(key)},
                ExpiresIn=_expiry(expires_s),
            )

    async def put(self, key: str, data: bytes) -> None:
        deadline_s = put_s(len(data))
        url = self.presign_put(key, len(data), deadline_s)
        with _bucket_named(self._bucket):
            if not await self._objects.put(url, data, deadline_s) and await self.get(key) != data:
                raise ObjectExists(f"{key} holds other bytes: objects are never overwritten")

    async def get(self, key: str, max_bytes: int = MAX_OBJECT) -> bytes:
        with _bucket_named(self._bucket):
            return await self._objects.get(self.presign_get(key, GET_S), max_bytes, GET_S)

    async def size(self, key: str) -> int | None:
        with _typed_errors(key):
            url = self._client.generate_presigned_url(
                "head_object",
                Params={"Bucket": self._bucket, "Key": self._key(key)},
                ExpiresIn=_expiry(HEAD_S),
            )
        return await self._objects.size(url, HEAD_S)

    async def list(self, prefix: str) -> list[ObjectInfo]:
        return await asyncio.to_thread(self._list, validate_prefix(prefix))

    async def delete_prefix(self, prefix: str) -> int:
        folder = validate_prefix(prefix)
        if not folder:
            raise ValueError("delete_prefix needs a folder: deleting the whole store is not offered")
        return await asyncio.to_thread(self._delete, folder)

    async def close(self) -> None:
        await self._objects.close()
        await asyncio.to_thread(self._client.close)

    def _key(self, key: str) -> str:
        return self._prefix + validate_key(key)

    def _list(self, folder: str) -> Listing:
        with _typed_errors(folder):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + folder
            )
            found = [
                ObjectInfo(item["Key"].removeprefix(self._prefix), item["Size"])
                for page in pages
                for item in page.get("Contents", [])
            ]
        return sorted(found, key=lambda item: item.key)

    def _delete(self, folder: str) -> int:
        keys = [self._prefix + item.key for item in self._list(folder)]
        for start in range(0, len(keys), _DELETE_BATCH):
            batch = keys[start : start + _DELETE_BATCH]
            with _typed_errors(folder):
                answer = self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": [{"Key": k} for k in batch], "Quiet": True}
                )
            if failed := answer.get("Errors"):
                raise StoreError(f"not deleted of {folder}: {counted(len(failed), 'object')}, as {failed[0]}")
        return len(keys)


def _open_client(endpoint_url: str | None, region: str | None) -> S3Client:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    # Path-style addresses, because only AWS supports the other style everywhere. Without the optional
    # checksums of newer SDKs, because several other S3s refuse them.
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path" if endpoint_url else "auto"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"max_attempts": 4, "mode": "standard"},
        connect_timeout=CONNECT_S,
        read_timeout=READ_S,
        max_pool_connections=32,
        # As in `iota.http`: a proxy by its rule alone, and none rather than that of boto3's own rule.
        proxies=_proxies(endpoint_url or "https://s3.amazonaws.com"),
    )
    try:
        session = boto3.session.Session(region_name=region)
        if session.get_credentials() is None:
            raise ValueError(
                "no S3 credentials were found: run 'aws configure', or set AWS_ACCESS_KEY_ID and"
                " AWS_SECRET_ACCESS_KEY"
            )
        # SigV4 needs a region; services with an endpoint of their own accept any.
        named = region or session.region_name or ("us-east-1" if endpoint_url else None)
        if named is None:
            raise ValueError("no S3 region was found: add ?region=NAME to the s3:// URL")
        return session.client(
            "s3",
            endpoint_url=endpoint_url,
            region_name=named,
            config=config,
            verify=certificates_file(),
        )
    except BotoCoreError as error:
        raise ValueError(f"boto3 cannot be set up: {error}") from error


def _proxies(url: str) -> dict[str, str]:
    proxy = proxy_for(url)
    return {} if proxy is None else {url.partition("://")[0]: proxy}


@contextmanager
def _bucket_named(bucket: str) -> Iterator[None]:
    """Tell a missing bucket from a missing object: S3 answers both with 404."""
    try:
        yield
    except ObjectMissing as error:
        if "NoSuchBucket" not in str(error):
            raise
        raise BucketMissing(f"there is no bucket {bucket}: create the bucket first ({error})") from error


@contextmanager
def _typed_errors(what: str) -> Iterator[None]:
    """Translate boto3's errors to this package's; `what` (a key or folder) begins their text."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        status = _status(error)
        text = f"{what}: {error}"
        if error.response.get("Error", {}).get("Code") == "NoSuchBucket":
            raise BucketMissing(f"{text}; create the bucket first") from error
        if status == 404:
            raise ObjectMissing(text) from error
        if status == 412:
            raise ObjectExists(text) from error
        if status in (401, 403):
            raise UrlRefused(f"{text}; check the S3 credentials and the bucket's policy") from error
        if status == 429 or status >= 500:
            raise StoreUnavailable(text) from error
        raise StoreError(text) from error
    except BotoCoreError as error:
        raise StoreUnavailable(f"{what}: {error}") from error
    except RecursionError:
        # boto3 asks a bucket that redirects for its region, and follows a redirect of that answer too.
        raise StoreError(f"{what}: the store redirects without end") from None


def _status(error: Exception) -> int:
    response = getattr(error, "response", {})
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _expiry(expires_s: float) -> int:
    if not 0 < expires_s <= MAX_EXPIRY_S:
        raise ValueError(f"S3 takes expiries of up to 7 days, not {expires_s:g} s")
    return math.ceil(expires_s)
