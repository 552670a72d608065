"""Streams of changes of public variables: what a change looks like is written once for all of them."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from iota.protocol.problems import Problem, ProblemType
from orchestrator.bridge import Bridge, changes_after
from orchestrator.http.bridge_texts import watch_text
from orchestrator.http.bridge_waits import BridgeWaits

QUIET_S: Final = 15.0
"""Time without a change after which a stream gets a comment, so that a dead connection is noticed."""

_MAX_KEPT: Final = 256
"""Events that are kept for further streams: those of few prefixes, since most are up to date."""
_MAX_KEPT_BYTES: Final = 64 << 10
"""Of one of them."""


class BridgeStreams:
    """The open streams."""

    def __init__(self, run: str, bridge: Bridge, waits: BridgeWaits, most: int) -> None:
        """`run` is the run's id; at most `most` streams may be open."""
        self._run, self._bridge, self._waits, self._most = run, bridge, waits, most
        self._open = 0
        self._events: dict[tuple[str, int], tuple[int, bytes]] = {}
        """(prefix, revision that a stream has) -> the revision that it has after the event, and the event."""
        self._events_of = -1
        """The Bridge's revision that the events lead to."""

    async def serve(self, request: web.Request, prefix: str, revision: int | None) -> web.StreamResponse:
        """Send the changes under a prefix after a revision, until the reader goes or the server stops.

        Raises Problem (UNAVAILABLE) where too many streams are open.
        """
        if self._open >= self._most:
            raise Problem(ProblemType.UNAVAILABLE, "too many open streams: try later", retry_after=30)
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        self._open += 1
        try:
            await response.prepare(request)
            await self._send(response, prefix, self._seen(request, revision))
        except ConnectionError:
            pass  # the reader closed the connection
        finally:
            self._open -= 1
        return response

    async def _send(self, response: web.StreamResponse, prefix: str, at: int | None) -> None:
        while not self._waits.stopping:
            before = at
            at, event = self._event(prefix, at)
            if event:
                await response.write(event)
            elif at == before and not await self._waits.changed(QUIET_S):
                await response.write(b": still here\n\n")

    def _event(self, prefix: str, at: int | None) -> tuple[int, bytes]:
        """What a stream at this revision gets next, and the revision that it then has; empty for nothing."""
        if self._events_of != self._bridge.revision or len(self._events) > _MAX_KEPT:
            self._events_of = self._bridge.revision
            self._events.clear()
        key = prefix, -1 if at is None else at
        if (known := self._events.get(key)) is None:
            found = changes_after(self._bridge, prefix, at, trusted=False)
            event = b""
            if found.snapshot or found.changes:
                name = f"{self._run[:16]}-{found.revision}"
                event = b"id: " + name.encode() + b"\ndata: " + watch_text(found) + b"\n\n"
            known = found.revision, event
            if len(event) <= _MAX_KEPT_BYTES:
                self._events[key] = known
        return known

    def _seen(self, request: web.Request, revision: int | None) -> int | None:
        """The revision that a client has of this run: from `Last-Event-ID`, else from the request."""
        run, _, number = request.headers.get("Last-Event-ID", "").rpartition("-")
        known = run == self._run[:16] and number.isascii() and number.isdigit() and len(number) <= 16
        return int(number) if known else revision
