"""The requests to an S3 that need credentials, by boto3, with its errors as this package's."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from iota.console.counts import counted
from iota.http.client import CONNECT_S, READ_S
from iota.http.hosts import certificates_file, proxy_for
from iota.store.s3_modes import MAX_EXPIRY_S, Deletes, S3Modes
from iota.store.store import (
    BucketMissing,
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
    UrlRefused,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

_DELETE_BATCH: Final = 1000
"""S3's bound on the keys of one request."""
_CREDENTIALS: Final = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken")
_SKEW: Final = ("RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture")
_CHECKSUM_FIELDS: Final = ("x-amz-checksum-crc32", "x-amz-sdk-checksum-algorithm")


@dataclass(frozen=True)
class PartInfo:
    """A part that was stored: its number from 1, its size in bytes, and the service's tag of its content."""

    number: int
    size: int
    tag: str


class S3Api:
    """Requests about one bucket, as `modes` says. Keys are whole; every method but `url` blocks.

    Raises:
        ValueError: if boto3 has no credentials or no region to sign with.
    """

    def __init__(self, bucket: str, endpoint_url: str | None, region: str | None) -> None:
        self.bucket = bucket
        self.modes = S3Modes()
        self.client = _open_client(endpoint_url, region)
        self.client.meta.events.register("before-sign.s3.DeleteObjects", self._sum_deletion)

    def url(self, operation: str, key: str, expires_s: float, **parameters: Any) -> str:
        """A presigned URL of boto3's `operation`; it lives as long as the service allows. No I/O."""
        if not 0 < expires_s <= MAX_EXPIRY_S:
            raise ValueError(f"S3 takes expiries of up to 7 days, not {expires_s:g} s")
        with typed_errors(key):
            return self.client.generate_presigned_url(
                operation,
                Params={"Bucket": self.bucket, "Key": key, **parameters},
                ExpiresIn=min(math.ceil(expires_s), self.modes.max_expiry_s),
            )

    def put_url(self, key: str, size: int, expires_s: float, *, once: bool) -> str:
        """URL that stores exactly `size` bytes; with `once` where there is no object only."""
        # What is signed the uploader must send: `ObjectClient` reads from the URL what that is.
        condition = {"IfNoneMatch": "*"} if once else {}
        return self.url("put_object", key, expires_s, ContentLength=size, **condition)

    def list(self, folder: str) -> list[ObjectInfo]:
        """Objects below `folder`, in the service's order."""
        with typed_errors(folder):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=folder)
            return [
                ObjectInfo(item["Key"], item["Size"]) for page in pages for item in page.get("Contents", [])
            ]

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; those that are not there count as deleted."""
        if self.modes.deletes is Deletes.ONE_BY_ONE:
            for key in keys:
                self.delete_one(key)
            return
        for start in range(0, len(keys), _DELETE_BATCH):
            batch = keys[start : start + _DELETE_BATCH]
            with typed_errors(batch[0]):
                answer = self.client.delete_objects(
                    Bucket=self.bucket, Delete={"Objects": [{"Key": k} for k in batch], "Quiet": True}
                )
            if failed := answer.get("Errors"):
                raise StoreError(f"not deleted: {counted(len(failed), 'object')}, as {failed[0]}")

    def delete_one(self, key: str) -> None:
        """Delete one object by a request of its own."""
        with typed_errors(key):
            self.client.delete_object(Bucket=self.bucket, Key=key)

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the service. Raises ObjectMissing where the source is not there."""
        with typed_errors(source):
            self.client.copy_object(
                Bucket=self.bucket, Key=target, CopySource={"Bucket": self.bucket, "Key": source}
            )

    def begin_upload(self, key: str) -> str:
        """Begin to store an object in parts, or go on with it: the name of the upload."""
        with typed_errors(key):
            begun = next((upload for found, upload in self._uploads(key) if found == key), None)
            return begun or self.client.create_multipart_upload(Bucket=self.bucket, Key=key)["UploadId"]

    def parts(self, key: str, upload: str) -> Sequence[PartInfo]:
        """What has been stored of an upload, in order. Raises ObjectMissing where there is no such upload."""
        with typed_errors(key):
            pages = self.client.get_paginator("list_parts").paginate(
                Bucket=self.bucket, Key=key, UploadId=upload
            )
            return [
                PartInfo(part["PartNumber"], part["Size"], part["ETag"])
                for page in pages
                for part in page.get("Parts", [])
            ]

    def complete_upload(self, key: str, upload: str, parts: Sequence[PartInfo], *, once: bool) -> None:
        """Make an object of its parts. With `once` raises ObjectExists where there is one."""
        named: list[CompletedPartTypeDef] = [{"PartNumber": p.number, "ETag": p.tag} for p in parts]
        how: dict[str, Any] = {"IfNoneMatch": "*"} if once else {}
        with typed_errors(key):
            self.client.complete_multipart_upload(
                Bucket=self.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": named}, **how
            )

    def abort_uploads(self, folder: str) -> None:
        """Forget what has been stored of objects below `folder` that were not completed."""
        with typed_errors(folder):
            uploads = self._uploads(folder)
        for key, upload in uploads:
            self.abort_upload(key, upload)

    def abort_upload(self, key: str, upload: str) -> None:
        """Forget what has been stored of an upload."""
        with typed_errors(key):
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)

    def _uploads(self, folder: str) -> Sequence[tuple[str, str]]:
        pages = self.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket, Prefix=folder
        )
        return [(each["Key"], each["UploadId"]) for page in pages for each in page.get("Uploads", [])]

    def _sum_deletion(self, request: Any, **_: object) -> None:
        if self.modes.deletes is not Deletes.BATCH_MD5:
            return
        for field in _CHECKSUM_FIELDS:
            del request.headers[field]
        digest = hashlib.md5(request.body, usedforsecurity=False).digest()
        request.headers["Content-MD5"] = base64.b64encode(digest).decode()


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
def typed_errors(what: str) -> Iterator[None]:
    """Translate boto3's errors to this package's; `what` (a key or folder) begins their text."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise _typed(what, error) from error
    except BotoCoreError as error:
        raise StoreUnavailable(f"{what}: {error}") from error
    except RecursionError:
        # boto3 asks a bucket that redirects for its region, and follows a redirect of that answer too.
        raise StoreError(f"{what}: the store redirects without end") from None


def _typed(what: str, error: Any) -> StoreError:
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code, text = error.response.get("Error", {}).get("Code"), f"{what}: {error}"
    if code == "NoSuchBucket":
        return BucketMissing(f"{text}; create the bucket first")
    if code in _SKEW:
        return UrlRefused(f"{text}; set this machine's clock")
    if code in _CREDENTIALS:
        return UrlRefused(
            f"{text}; these S3 credentials are not the service's: check both keys, and the region"
        )
    if status == 404:
        return ObjectMissing(text)
    if status == 412:
        return ObjectExists(text)
    if status in (401, 403):
        return UrlRefused(
            f"{text}; check the S3 credentials and the bucket's policy: s3:GetObject, s3:PutObject,"
            " s3:DeleteObject and s3:ListBucket are needed"
        )
    if status == 429 or (status >= 500 and status != 501):
        return StoreUnavailable(text)
    return StoreError(text)
