"""An S3 in memory that verifies every signature, and lacks what some services lack."""

from __future__ import annotations

import base64
import hashlib
import itertools
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import unquote
from xml.etree import ElementTree

from aiohttp import web
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from iota.store.s3 import S3Store
from iota.store.s3_modes import CreateOnce, Deletes, Parts, S3Modes
from tests.support.store_servers import NO_METADATA, environment, serving

ACCESS, SECRET = "odd-access", "odd-secret"
REGION = "odd-region-1"
BUCKET, PREFIX = "bucket", "runs/one"
ODD_MODES = S3Modes(create_once=CreateOnce.COPY, deletes=Deletes.BATCH_MD5, parts=Parts.LOOK)
"""How a service with the oddities of `Oddities()` is used."""
_SKEW_S = 900.0
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/,]+)/(\d{8})/([^/,]+)/s3/aws4_request,"
    r" ?SignedHeaders=([^,]+), ?Signature=(\w+)"
)


@dataclass(frozen=True)
class Oddities:
    """What a service lacks or asks for. The defaults are those of OpenStack Swift."""

    conditions: bool | None = False
    """Whether If-None-Match is taken; if not, it is answered with 501. None: it is ignored."""
    needs_md5: bool = True
    """Whether a batch deletion is refused without Content-MD5."""
    batches: bool = True
    """Whether batch deletions are there at all."""
    max_expiry_s: int = 7 * 24 * 3600
    lists: bool = True
    """Whether the credentials may list: if not, what is absent is forbidden."""
    writes: bool = True
    """Whether the credentials may write."""
    copies: bool = True
    multipart: bool = True
    skew_s: float = 0.0
    """How far the service's clock is ahead."""


@dataclass
class _Upload:
    key: str
    parts: dict[int, bytes] = field(default_factory=dict)


class Refusal(Exception):
    """An answer that is an error document."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class OddS3:
    """The service. `objects` are the bucket's, by key; `seen` the requests, as METHOD and path."""

    def __init__(self, oddities: Oddities = Oddities()) -> None:
        self.odd = oddities
        self.objects: dict[str, bytes] = {}
        self.uploads: dict[str, _Upload] = {}
        self.seen: list[str] = []
        self.url = ""
        self._ids = itertools.count(1)

    def store(self, modes: S3Modes) -> S3Store:
        """A client in the given modes, without a check. It needs `credentials`."""
        return S3Store(BUCKET, self.url, REGION, PREFIX, modes)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{bucket}", self._answer)
        app.router.add_route("*", "/{bucket}/{key:.*}", self._answer)
        return app

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(f"{request.method} {request.path}")
        try:
            self._authenticate(request, body)
            if request.match_info["bucket"] != BUCKET:
                raise Refusal(404, "NoSuchBucket")
            key = request.match_info.get("key", "")
            return self._object(request, key, body) if key else self._bucket(request, body)
        except Refusal as refusal:
            text = f"<Error><Code>{refusal.code}</Code><Message>no</Message></Error>"
            return web.Response(status=refusal.status, text=text, content_type="application/xml")

    def _authenticate(self, request: web.Request, body: bytes) -> None:
        if "X-Amz-Signature" in request.query:
            self._check_presigned(request)
        else:
            self._check_header(request, body)

    def _check_presigned(self, request: web.Request) -> None:
        query = request.query
        access, _, region, *_ = query["X-Amz-Credential"].split("/")
        life_s = int(query["X-Amz-Expires"])
        if not 0 < life_s <= self.odd.max_expiry_s:
            raise Refusal(400, "AuthorizationQueryParametersError")
        age_s = self._age_s(query["X-Amz-Date"])
        raw = re.sub(r"&X-Amz-Signature=\w+$", "", request.rel_url.raw_query_string)
        signer = S3SigV4QueryAuth(Credentials(ACCESS, SECRET), "s3", region)
        expected = _signature(signer, request, raw, query["X-Amz-SignedHeaders"], query["X-Amz-Date"])
        self._check(access, expected, query["X-Amz-Signature"])
        if age_s > life_s:
            raise Refusal(403, "AccessDenied")

    def _check_header(self, request: web.Request, body: bytes) -> None:
        found = _AUTHORIZATION.fullmatch(request.headers.get("Authorization", ""))
        if found is None:
            raise Refusal(403, "AccessDenied")
        access, _, region, signed, signature = found.groups()
        date = request.headers["X-Amz-Date"]
        if abs(self._age_s(date)) > _SKEW_S:
            raise Refusal(403, "RequestTimeTooSkewed")
        if request.headers["X-Amz-Content-SHA256"] != hashlib.sha256(body).hexdigest():
            raise Refusal(400, "XAmzContentSHA256Mismatch")
        signer = S3SigV4Auth(Credentials(ACCESS, SECRET), "s3", region)
        expected = _signature(signer, request, request.rel_url.raw_query_string, signed, date)
        self._check(access, expected, signature)

    def _age_s(self, date: str) -> float:
        made = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        return (datetime.now(UTC) - made).total_seconds() + self.odd.skew_s

    def _check(self, access: str, expected: str, signature: str) -> None:
        if access != ACCESS:
            raise Refusal(403, "InvalidAccessKeyId")
        if expected != signature:
            raise Refusal(403, "SignatureDoesNotMatch")

    def _bucket(self, request: web.Request, body: bytes) -> web.Response:
        query = request.query
        if request.method == "POST" and "delete" in query:
            return self._delete_batch(request, body)
        if not self.odd.lists:
            raise Refusal(403, "AccessDenied")
        prefix = query.get("prefix", "")
        if "uploads" in query:
            found = [(i, u.key) for i, u in self.uploads.items() if u.key.startswith(prefix)]
            each = "".join(f"<Upload><Key>{k}</Key><UploadId>{i}</UploadId></Upload>" for i, k in found)
            return _xml("ListMultipartUploadsResult", f"<IsTruncated>false</IsTruncated>{each}")
        each = "".join(
            f"<Contents><Key>{key}</Key><Size>{len(data)}</Size></Contents>"
            for key, data in sorted(self.objects.items())
            if key.startswith(prefix)
        )
        return _xml("ListBucketResult", f"<IsTruncated>false</IsTruncated>{each}")

    def _delete_batch(self, request: web.Request, body: bytes) -> web.Response:
        if not self.odd.batches:
            raise Refusal(501, "NotImplemented")
        digest = base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
        given = request.headers.get("Content-MD5")
        if given is None and self.odd.needs_md5:
            raise Refusal(400, "InvalidRequest")
        if given not in (None, digest):
            raise Refusal(400, "BadDigest")
        for key in _texts(body, "Key"):
            self.objects.pop(key, None)
        return _xml("DeleteResult", "")

    def _object(self, request: web.Request, key: str, body: bytes) -> web.Response:
        query = request.query
        if "uploads" in query or "uploadId" in query:
            if not self.odd.multipart:
                raise Refusal(501, "NotImplemented")
            return self._multipart(request, key, body)
        match request.method:
            case "PUT" if "X-Amz-Copy-Source" in request.headers:
                return self._copy(request, key)
            case "PUT" if not self.odd.writes:
                raise Refusal(403, "AccessDenied")
            case "PUT":
                self._check_condition(request, key)
                self.objects[key] = body
                return web.Response(headers={"ETag": _etag(body)})
            case "DELETE":
                self.objects.pop(key, None)
                return web.Response(status=204)
        if key not in self.objects:
            raise Refusal(404, "NoSuchKey") if self.odd.lists else Refusal(403, "AccessDenied")
        return _read(request, self.objects[key])

    def _check_condition(self, request: web.Request, key: str) -> None:
        if "If-None-Match" not in request.headers or self.odd.conditions is None:
            return
        if not self.odd.conditions:
            raise Refusal(501, "NotImplemented")
        if key in self.objects:
            raise Refusal(412, "PreconditionFailed")

    def _copy(self, request: web.Request, key: str) -> web.Response:
        if not self.odd.copies:
            raise Refusal(501, "NotImplemented")
        source = unquote(request.headers["X-Amz-Copy-Source"]).removeprefix("/").partition("/")[2]
        if source not in self.objects:
            raise Refusal(404, "NoSuchKey")
        self.objects[key] = self.objects[source]
        return _xml("CopyObjectResult", f"<ETag>{_etag(self.objects[key])}</ETag>")

    def _multipart(self, request: web.Request, key: str, body: bytes) -> web.Response:
        query = request.query
        if "uploads" in query:
            name = f"upload-{next(self._ids)}"
            self.uploads[name] = _Upload(key)
            return _xml("InitiateMultipartUploadResult", f"<UploadId>{name}</UploadId>")
        upload = self.uploads.get(query["uploadId"])
        if upload is None or upload.key != key:
            raise Refusal(404, "NoSuchUpload")
        match request.method:
            case "PUT":
                upload.parts[int(query["partNumber"])] = body
                return web.Response(headers={"ETag": _etag(body)})
            case "GET":
                each = "".join(
                    f"<Part><PartNumber>{n}</PartNumber><ETag>{_etag(p)}</ETag><Size>{len(p)}</Size></Part>"
                    for n, p in sorted(upload.parts.items())
                )
                return _xml("ListPartsResult", f"<IsTruncated>false</IsTruncated>{each}")
            case "DELETE":
                del self.uploads[query["uploadId"]]
                return web.Response(status=204)
        if self.odd.conditions:  # Swift ignores here what it refuses of a PUT
            self._check_condition(request, key)
        named = [int(number) for number in _texts(body, "PartNumber")]
        if named != sorted(upload.parts):
            raise Refusal(400, "InvalidPart")
        self.objects[key] = b"".join(upload.parts[n] for n in named)
        del self.uploads[query["uploadId"]]
        return _xml("CompleteMultipartUploadResult", f"<Key>{key}</Key>")


@asynccontextmanager
async def odd_s3(oddities: Oddities = Oddities()) -> AsyncIterator[tuple[OddS3, str]]:
    """The service on loopback, and the s3:// URL of a folder in its bucket."""
    service = OddS3(oddities)
    async with serving(service.app()) as url:
        service.url = url
        yield service, f"s3://{BUCKET}/{PREFIX}?endpoint={url}&region={REGION}"


@contextmanager
def credentials(secret: str = SECRET) -> Iterator[None]:
    """The service's credentials where boto3's chain finds them."""
    with environment({**NO_METADATA, "AWS_ACCESS_KEY_ID": ACCESS, "AWS_SECRET_ACCESS_KEY": secret}):
        yield


def _signature(signer: S3SigV4Auth, request: web.Request, raw_query: str, signed: str, date: str) -> str:
    url = f"{request.scheme}://{request.headers['Host']}{request.rel_url.raw_path}?{raw_query}"
    headers: Mapping[str, str] = {name: request.headers.get(name, "") for name in signed.split(";")}
    again = AWSRequest(method=request.method, url=url, headers=headers)
    again.context["timestamp"] = date
    text = signer.canonical_request(again)
    return str(signer.signature(signer.string_to_sign(again, text), again))


def _read(request: web.Request, data: bytes) -> web.Response:
    headers, status = {"ETag": _etag(data)}, 200
    if found := re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", "")):
        start, last = map(int, found.groups())
        if start >= len(data):
            raise Refusal(416, "InvalidRange")
        last, status = min(last, len(data) - 1), 206
        headers["Content-Range"] = f"bytes {start}-{last}/{len(data)}"
        data = data[start : last + 1]
    headers["Content-Length"] = str(len(data))
    return web.Response(body=data, status=status, headers=headers)


def _texts(body: bytes, name: str) -> list[str]:
    return [found.text or "" for found in ElementTree.fromstring(body).iter() if found.tag.endswith(name)]


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def _xml(root: str, inner: str) -> web.Response:
    return web.Response(text=f"<{root}>{inner}</{root}>", content_type="application/xml")
