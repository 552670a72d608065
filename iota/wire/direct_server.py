"""Takes frames that peers push over HTTP/1.1: a frame is the body of one request.

    GET /v1/hello          204, for a peer to measure the round trip
    POST /v1/frames        Content-Length: the frame's bytes
    200                    64 bytes: the receiver's acknowledgement
    400, 409 or 503        {"why": ..., "detail": ...}: a refusal of the door

The head is read and judged before the payload. What is not asked for costs the peer its connection.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Final
from weakref import WeakKeyDictionary

from aiohttp import web
from pydantic import Field

from iota.http.server import ConnectionLimits, admit, listening
from iota.spec import Frozen
from iota.wire.crumbs import Body, BrokeOff, Crumbs
from iota.wire.frame import PREFIX_BYTES, FrameError, head_size
from iota.wire.link import MAX_HEAD, Door, DoorRefused, Refusal
from iota.wire.troubles import Troubles

PATH: Final = "/v1/frames"
HELLO: Final = "/v1/hello"
HEAD_S: Final = 10.0
"""Time for a frame's head to arrive after the request's headers."""
LEAST_RATE: Final = 16 << 10
"""Bytes a second below which a payload is given up: a modem's speed."""
MAX_CONNECTIONS: Final = 2048
"""Of all addresses, and no more than half of what the system lets this process open: files of frames and
receipts must never lack room for strangers' connections."""
_STATUS: Final = {
    Refusal.MALFORMED: 400,
    Refusal.NOT_EXPECTED: 409,
    Refusal.OTHER: 409,
    Refusal.LATER: 503,
}


log = logging.getLogger(__name__)
_TROUBLES: Final = web.AppKey("troubles", Troubles)
_CRUMBS: Final = web.AppKey("crumbs", Crumbs)
_IDLE: Final[web.AppKey[WeakKeyDictionary[object, int]]] = web.AppKey("idle", WeakKeyDictionary)
"""By connection: requests that brought no frame."""
_MAX_IDLE: Final = 4
"""Such requests in one connection: each takes the miner as long as a frame's head."""


class Refused(Frozen):
    """The body of a refusal."""

    why: Refusal
    detail: Annotated[str, Field(max_length=200)] = ""


@asynccontextmanager
async def serve_frames(
    door: Door, max_payload: int, host: str, port: int, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Take frames with at most `max_payload` bytes of payload, while the context is open.

    With `tls` it speaks HTTPS. Yields the port that was bound. Raises PortUnavailable.
    """

    async def take(request: web.Request) -> web.Response:
        return web.Response(body=await _take(request, door, max_payload))

    async def hello(request: web.Request) -> web.Response:
        answer, idle = web.Response(status=204), app[_IDLE]
        if (connection := request.transport) is not None:
            idle[connection] = idle.get(connection, 0) + 1
            if idle[connection] >= _MAX_IDLE:
                answer.force_close()
        return answer

    app = web.Application(middlewares=[_with_refusals])
    app[_TROUBLES], app[_CRUMBS], app[_IDLE] = Troubles(log), Crumbs(), WeakKeyDictionary()
    app.router.add_post(PATH, take)
    app.router.add_get(HELLO, hello)
    limits = ConnectionLimits(
        header_s=10.0,
        keepalive_s=75.0,
        connections=64,
        rate=4.0,
        total=MAX_CONNECTIONS,
        fields=32,
        field_bytes=2048,
        shutdown_s=1.0,
    )
    async with listening(app, host, port, limits, tls) as url:
        yield int(url.rpartition(":")[2])


@web.middleware
async def _with_refusals(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        admit(request)
        return await handler(request)
    except BrokeOff:
        return _refusal(DoorRefused(Refusal.MALFORMED, "the frame broke off"))
    except DoorRefused as refused:
        return _refusal(refused)
    except web.HTTPException as error:  # no path of this server
        error.force_close()
        raise


def _refusal(refused: DoorRefused) -> web.Response:
    body = Refused(why=refused.why, detail=refused.detail[:200])
    answer = web.Response(status=_STATUS[refused.why], body=body.canonical(), content_type="application/json")
    answer.force_close()  # the rest of the body is not read
    return answer


async def _take(request: web.Request, door: Door, max_payload: int) -> bytes:
    size, body = request.content_length, Body(request, request.app[_CRUMBS])
    try:
        if size is None or not PREFIX_BYTES < size <= max_payload + MAX_HEAD:
            raise DoorRefused(Refusal.MALFORMED, "no frame of this run has this size")
        head, rest = await _read_head(body, size)
        if (known := await door.admit(head, size)) is not None:
            return known
    except DoorRefused as refused:
        if refused.why is Refusal.MALFORMED:
            where, text = request.remote or "", f"something that is no frame came from {request.remote}"
            request.app[_TROUBLES].name(where, refused.why, f"{text}: {refused.detail}")
        raise
    try:
        data = await _read_payload(body, head, rest, size)
    except BaseException:  # also when the peer goes away, which cancels this
        door.give_up(head)
        raise
    return await door.take(head, data)


async def _read_head(body: Body, size: int) -> tuple[bytes, bytes]:
    """The frame's head, and what came of the payload with it."""
    found = b""
    try:
        async with asyncio.timeout(HEAD_S):
            while True:
                if len(found) >= PREFIX_BYTES:
                    length = head_size(found)
                    if not length <= min(size, MAX_HEAD):
                        raise DoorRefused(Refusal.MALFORMED, "its head is too long")
                    if len(found) >= length:
                        return found[:length], found[length:]
                found += await body.more()
    except TimeoutError:
        raise DoorRefused(Refusal.LATER, f"its head did not come within {HEAD_S:g} s") from None
    except FrameError as error:
        raise DoorRefused(Refusal.MALFORMED, str(error)) from error


async def _read_payload(body: Body, head: bytes, rest: bytes, size: int) -> bytearray:
    """The whole frame, whose head and first bytes are read.

    It lies in one piece from the start: a body that comes byte by byte would take many times its size.
    """
    frame, end = bytearray(size), len(head) + len(rest)
    frame[:end] = head + rest
    try:
        async with asyncio.timeout(HEAD_S + size / LEAST_RATE):
            while end < size:
                part = await body.more()
                frame[end : end + len(part)] = part
                end += len(part)
    except TimeoutError:
        raise DoorRefused(Refusal.LATER, f"it came at less than {LEAST_RATE >> 10} KiB/s") from None
    return frame
