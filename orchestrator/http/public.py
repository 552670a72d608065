"""Read-only handlers for anyone: the run, its status, its members, health and metrics."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from aiohttp import web

from iota.console.counts import counted
from iota.console.version import versions
from iota.identity.http_auth import SIGNATURE_HEADER, sign_response
from iota.identity.keys import Hotkey
from iota.protocol.messages import PROTOCOL_VERSION, NodeStatus
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.status_delta import delta
from orchestrator.coordinator import Coordinator
from orchestrator.http.metrics import Metrics

STREAM_EVERY_S: Final = 1.0
"""Seconds between two looks at the status for a stream."""
_MIN_PREFIX: Final = 4
"""Least characters of a hotkey that name a member; all begin with 5."""
_NONCE_DIGITS: Final = 20
_QUIET_S: Final = 15
"""Seconds without a change after which a stream gets a comment, so that a dead connection is noticed."""
_FRESH_S: Final = 0.2
"""Seconds for which a status is served again, at least: building it takes time on the event loop."""
_BUILT_SHARE: Final = 0.05
"""Most of the event loop's time that building the status may take, however many members there are."""


class Public:
    """Handlers of unsigned requests."""

    def __init__(
        self,
        coordinator: Coordinator,
        hotkey: Hotkey,
        manifest: bytes,
        statuses: dict[str, NodeStatus],
        heard: Callable[[str], float | None],
        metrics: Metrics,
        ready: Callable[[], str | None],
        streams: int,
    ) -> None:
        """`ready()` returns None, or the reason why the server is not ready; `heard(hotkey)` the Unix time
        of a member's last request, if one came to this process."""
        self._coordinator = coordinator
        self._hotkey = hotkey
        self._manifest = manifest
        self._statuses = statuses
        self._heard = heard
        self._metrics = metrics
        self._ready = ready
        self._software = versions()
        self._max_streams = streams
        self._open_streams = 0
        self._fresh_until = float("-inf")
        self._document: dict[str, Any] = {}
        self._rendered = b""
        self.stopping = asyncio.Event()
        """Set at shutdown, which ends the open streams."""

    async def run(self, request: web.Request) -> web.Response:
        """GET /v1/run[?nonce=N]: spec, orchestrator and its software; signed for a nonce."""
        status = self._fresh()
        document = {
            "run": self._coordinator.spec.id,
            "spec": self._coordinator.spec.model_dump(mode="json"),
            "orchestrator": self._hotkey.ss58,
            "versions": [PROTOCOL_VERSION],
            "epoch": status["epoch"],
            "step": status["step"],
            "software": self._software,
        }
        body = _json(document)
        answer = web.Response(body=body, content_type="application/json")
        nonce = request.query.get("nonce", "")
        if nonce.isascii() and nonce.isdigit() and len(nonce) <= _NONCE_DIGITS:
            # No request has an empty signature, so this answer cannot pass for one to a signed request.
            answer.headers[SIGNATURE_HEADER] = sign_response(
                self._hotkey, int(nonce), answer.status, body, request_signature=""
            )
        return answer

    async def status(self, request: web.Request) -> web.Response:
        """GET /v1/status[?since=N]: the public state, with the losses from number N or the newest."""
        return web.Response(body=self._render(self._since(request)), content_type="application/json")

    async def member(self, request: web.Request) -> web.Response:
        """GET /v1/members/HOTKEY: one member's record; the start of a hotkey will do if no other has it."""
        asked = request.match_info["hotkey"]
        members = self._coordinator.members
        found = [asked] if asked in members else [m for m in members if m.startswith(asked)]
        if len(found) != 1 or len(asked) < _MIN_PREFIX:
            several = f"{counted(len(found), 'member')} can be meant: give more of it"
            raise Problem(
                ProblemType.NOT_FOUND, f"hotkey {asked[:64]}: {several if found else 'no member has it'}"
            )
        record = self._coordinator.member_record(found[0])
        assert record is not None
        said = self._statuses.get(found[0])
        record = record.model_copy(
            update={"heard": self._heard(found[0]), "says": "" if said is None else said.state}
        )
        return web.Response(body=record.model_dump_json().encode(), content_type="application/json")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/stream[?since=N]: the status as server-sent events, then what changes of it each second.

        An event's id says the run and how many losses were sent; `Last-Event-ID` goes on from there.
        """
        if self._open_streams >= self._max_streams:
            raise Problem(ProblemType.UNAVAILABLE, "too many open streams: use /v1/status", retry_after=30)
        self._open_streams += 1
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        try:
            await response.prepare(request)
            before: dict[str, Any] = {}
            quiet, sent = 0, self._since(request)
            while not self.stopping.is_set():
                status, losses = self._fresh(), self._coordinator.losses(sent)
                changed = delta(before, status)
                quiet += 1
                if changed or losses["losses"]:
                    sent = losses["losses_from"] + len(losses["losses"])
                    await response.write(_event(f"{status['run'][:16]}-{sent}", {**changed, **losses}))
                    before, quiet = status, 0
                elif quiet * STREAM_EVERY_S >= _QUIET_S:
                    await response.write(b": still here\n\n")
                    quiet = 0
                with suppress(TimeoutError):
                    async with asyncio.timeout(STREAM_EVERY_S):
                        await self.stopping.wait()
        except ConnectionError:
            pass  # the reader closed the connection
        finally:
            self._open_streams -= 1
        return response

    async def manifest(self, request: web.Request) -> web.Response:
        """GET /v1/manifest: the data manifest."""
        return web.Response(body=self._manifest, content_type="application/json")

    async def metrics(self, request: web.Request) -> web.Response:
        """GET /metrics: a Prometheus scrape."""
        text = self._metrics.render({**self._fresh(), **self._coordinator.losses()})
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def healthz(self, request: web.Request) -> web.Response:
        """GET /healthz: 200 while the process serves."""
        return web.Response(text="ok\n")

    async def readyz(self, request: web.Request) -> web.Response:
        """GET /readyz: 200, or UNAVAILABLE with the reason."""
        if waits := self._ready():
            raise Problem(ProblemType.UNAVAILABLE, waits, retry_after=1)
        return web.Response(text="ready\n")

    def _fresh(self) -> dict[str, Any]:
        """The status document, built once for all clients while it is fresh."""
        now = time.monotonic()
        if now > self._fresh_until:
            nodes = {hotkey: status.model_dump(mode="json") for hotkey, status in self._statuses.items()}
            self._document = {**self._coordinator.status(), "nodes": nodes}
            self._rendered = b""
            made = time.monotonic()
            self._fresh_until = made + max(_FRESH_S, (made - now) / _BUILT_SHARE)
        return self._document

    def _render(self, since: int | None) -> bytes:
        """The status with its losses; all clients share the work for what is not their own losses."""
        document = self._fresh()
        if not self._rendered:
            self._rendered = _json(document)
        return self._rendered[:-1] + b"," + _json(self._coordinator.losses(since))[1:]

    def _since(self, request: web.Request) -> int | None:
        """The number of losses that a client has of this run: from `?since` or `Last-Event-ID`, else None."""
        run, _, number = request.headers.get("Last-Event-ID", "").rpartition("-")
        if run != self._coordinator.spec.id[:16]:
            number = request.query.get("since", "")
        return int(number) if number.isascii() and number.isdigit() and len(number) < 10 else None


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"id: " + name.encode() + b"\ndata: " + _json(data) + b"\n\n"


def path_number(request: web.Request, name: str) -> int:
    """The number in the part `name` of a request's path. Raises Problem (NOT_FOUND) for anything else."""
    text = request.match_info[name]
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise Problem(ProblemType.NOT_FOUND, f"the {name} is not a number")
    return int(text)
