"""HTTP server of the embedded store: presigned PUT and GET of create-once objects.

    PUT, GET, HEAD  /o/<key>         presigned for one key, operation, size and expiry
    GET, DELETE     /folder/<prefix> listing and deletion, for holders of the secret
    GET             /healthz

Handlers access the disk on the event loop, because switching threads costs more than reading a small
object. Large objects are read in worker threads, piece by piece.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import ClientConnectionError, web

from iota.console.watch import Watch
from iota.http.server import ConnectionLimits, admit, listening, problem_of
from iota.objects.grammar import validate_key, validate_prefix
from iota.store.embedded_signing import UrlOp, check_secret, verify
from iota.store.files import ObjectFiles, free_bytes
from iota.store.store import MAX_OBJECT, ObjectExists, ObjectMissing, StoreError, StoreFull
from iota.system.files import read_at

STALL_S = 30.0
"""Seconds to send one piece of a body."""
LIMITS = ConnectionLimits(keepalive_s=2 * STALL_S, connections=1024)
"""A node opens up to 64 connections, and several may share one address."""
MIN_BYTES_PER_S = 16 << 10
"""An upload may take `STALL_S` plus its size over this."""
RESERVE_BYTES = 64 << 20
"""Disk space that uploads leave free, so that other programs on the machine do not fail."""
_PIECE = 1 << 20
"""Objects up to this size are sent at once, larger ones in pieces of it."""

_FILES = web.AppKey("files", ObjectFiles)
_SECRET = web.AppKey("secret", bytes)
_NOW: web.AppKey[Callable[[], float]] = web.AppKey("now")
_STALL = web.AppKey("stall", float)
_WATCH = web.AppKey("watch", Watch)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(
    root: Path,
    secret: bytes,
    *,
    now: Callable[[], float] = time.time,
    stall_s: float = STALL_S,
    reserve_bytes: int = RESERVE_BYTES,
    free: Callable[[Path], int] = free_bytes,
) -> web.Application:
    """The server's application. It locks `root` from start-up to clean-up.

    `now` is the clock in Unix seconds, `free` gives the free bytes of a folder's disk. Start-up raises
    `RootInUse` if another server has locked `root`, and the call `ValueError` if the secret is too short.
    """
    app = web.Application(middlewares=[_problems])
    app[_SECRET] = check_secret(secret)
    app[_NOW] = now
    app[_STALL] = stall_s
    app[_WATCH] = Watch(endless=True)

    async def files(app: web.Application) -> AsyncIterator[None]:
        app[_FILES] = ObjectFiles(root, reserve_bytes, free)
        yield
        app[_FILES].close()

    app.cleanup_ctx.append(files)
    app.router.add_get("/healthz", _healthz)
    app.router.add_put("/o/{key:.+}", _put)
    app.router.add_get("/o/{key:.+}", _get)  # and HEAD
    app.router.add_get("/folder/{prefix:.*}", _list, allow_head=False)
    app.router.add_delete("/folder/{prefix:.*}", _delete)
    return app


@asynccontextmanager
async def running(root: Path, secret: bytes, host: str, port: int) -> AsyncIterator[str]:
    """Serve inside the block. Yields the base URL, with the port that was bound if `port` is 0.

    Raises `RootInUse`, or `PortUnavailable` if the address is taken.
    """
    async with listening(make_app(root, secret), host, port, LIMITS) as url:
        yield url


async def _healthz(request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _put(request: web.Request) -> web.Response:
    key, size = _authorised(request, UrlOp.PUT)
    announced = request.content_length
    if announced is None:
        return _problem(411, "length-required", "send the object's exact Content-Length")
    if announced != size or size > MAX_OBJECT:
        return _problem(400, "wrong-size", f"the URL is for {size} bytes, {announced} were announced")
    limit_s = request.app[_STALL] + size / MIN_BYTES_PER_S
    with request.app[_FILES].upload(key, size) as upload:
        try:
            async with asyncio.timeout(limit_s):
                async for piece in request.content.iter_any():
                    upload.write(piece)
        except TimeoutError:
            answer = _problem(408, "too-slow", f"the body did not arrive within {limit_s:.0f} s")
            answer.force_close()
            return answer
        upload.finish()
    request.app[_WATCH].passed()
    return web.Response(status=201)


async def _get(request: web.Request) -> web.StreamResponse:
    key, _ = _authorised(request, UrlOp.GET)
    fd = request.app[_FILES].open(key)
    try:
        return await _send(request, fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


async def _send(request: web.Request, fd: int, size: int) -> web.StreamResponse:
    """Answer with the object, or the one part of it that the Range header names."""
    start, stop, status = 0, size, 200
    headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    if "Range" in request.headers:
        part = _requested_range(request, size)
        if part is None:
            problem = _problem(416, "bad-range", f"ask for one range within the {size} bytes")
            problem.headers["Content-Range"] = f"bytes */{size}"
            return problem
        start, stop = part
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    if stop - start <= _PIECE and request.method != "HEAD":
        return web.Response(status=status, headers=headers, body=read_at(fd, stop - start, start))
    headers["Content-Length"] = str(stop - start)
    response = web.StreamResponse(status=status, headers=headers)
    await response.prepare(request)
    try:
        while start < stop and request.method != "HEAD":
            piece = await asyncio.to_thread(read_at, fd, min(_PIECE, stop - start), start)
            async with asyncio.timeout(request.app[_STALL]):
                await response.write(piece)
            start += len(piece)
    except TimeoutError:
        # The header has been sent, so aborting the connection is the only way to report the failure.
        if request.transport is not None:
            request.transport.abort()
    return response


def _requested_range(request: web.Request, size: int) -> tuple[int, int] | None:
    try:
        asked = request.http_range
    except ValueError:
        return None
    start, stop, _ = asked.indices(size)
    return (start, stop) if start < stop else None


async def _list(request: web.Request) -> web.Response:
    prefix, _ = _authorised(request, UrlOp.LIST)
    found = await asyncio.to_thread(request.app[_FILES].list, prefix)
    return _json(200, [[item.key, item.size] for item in found])


async def _delete(request: web.Request) -> web.Response:
    prefix, _ = _authorised(request, UrlOp.DELETE)
    if not prefix:
        return _problem(400, "no-folder", "deleting the whole store is not offered")
    return _json(200, {"deleted": await asyncio.to_thread(request.app[_FILES].delete_prefix, prefix)})


def _authorised(request: web.Request, op: UrlOp) -> tuple[str, int]:
    """The key or folder in the URL's path, and the signed size. Raises ValueError or PermissionError."""
    path = request.match_info
    key = validate_key(path["key"]) if "key" in path else validate_prefix(path["prefix"])
    return key, verify(request.app[_SECRET], op, key, request.query, int(request.app[_NOW]() * 1000))


@web.middleware
async def _problems(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Turn exceptions into problem documents (RFC 9457) with the status that S3 would use."""
    try:
        admit(request)
        return await handler(request)
    except web.HTTPException as error:
        return problem_of(error, _problem(error.status, "http", error.text or error.reason))
    except PermissionError as error:
        return _problem(403, "refused", str(error))
    except ObjectMissing as error:
        return _problem(404, "missing", str(error))
    except ObjectExists as error:
        return _problem(412, "exists", str(error))
    except StoreFull as error:
        request.app[_WATCH].failed(error)
        return _problem(507, "full", str(error))
    except (StoreError, ValueError) as error:
        return _problem(400, "bad-request", str(error))
    except ClientConnectionError:
        # The uploader has disconnected, so this answer is only for the middleware's return type.
        return _problem(400, "aborted", "the connection broke before the body was complete")


def _problem(status: int, kind: str, detail: str) -> web.Response:
    body = {"type": f"urn:iota:store:{kind}", "title": kind, "status": status, "detail": detail}
    return _json(status, body, "application/problem+json")


def _json(status: int, body: object, content_type: str = "application/json") -> web.Response:
    return web.Response(status=status, body=json.dumps(body).encode(), content_type=content_type)
