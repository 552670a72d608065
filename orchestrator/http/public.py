"""Handlers that only read: the run, its state, health and metrics for anyone; audit records for members."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from pydantic import TypeAdapter

from iota.protocol.messages import PROTOCOL_VERSION, NodeStatus
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import ReceiptBatch
from orchestrator.coordinator import Coordinator
from orchestrator.http.metrics import Metrics
from orchestrator.http.middleware import Answer, Call
from orchestrator.journal import Journal

STREAM_EVERY_S: Final = 1.0
_FRESH_S: Final = 0.2
_BATCHES: Final = TypeAdapter(list[ReceiptBatch])


class Public:
    """Handlers that anyone may call."""

    def __init__(
        self,
        coordinator: Coordinator,
        orchestrator: str,
        manifest: bytes,
        statuses: dict[str, NodeStatus],
        metrics: Metrics,
        ready: Callable[[], str | None],
        streams: int,
    ) -> None:
        """`ready()` is None, or the reason why the server is not ready."""
        self._coordinator = coordinator
        self._orchestrator = orchestrator
        self._manifest = manifest
        self._statuses = statuses
        self._metrics = metrics
        self._ready = ready
        self._most_streams = streams
        self._streams = 0
        self._made = float("-inf")
        self._document: dict[str, Any] = {}
        self._rendered = b""
        self.stopping = asyncio.Event()

    async def run(self, request: web.Request) -> web.Response:
        status = self._fresh()
        body = {
            "run": self._coordinator.spec.id,
            "spec": self._coordinator.spec.model_dump(mode="json"),
            "orchestrator": self._orchestrator,
            "versions": [PROTOCOL_VERSION],
            "epoch": status["epoch"],
            "step": status["step"],
        }
        return web.json_response(body)

    async def status(self, request: web.Request) -> web.Response:
        return web.Response(body=self._render(), content_type="application/json")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """The status as server-sent events: at once, and then at most every second when it changed."""
        if self._streams >= self._most_streams:
            raise Problem(ProblemType.UNAVAILABLE, "too many open streams: use /v1/status", retry_after=30)
        self._streams += 1
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
        )
        try:
            await response.prepare(request)
            sent, quiet = b"", 0
            while not self.stopping.is_set():
                status = self._render()
                quiet += 1
                if status != sent:
                    await response.write(b"data: " + status + b"\n\n")
                    sent, quiet = status, 0
                elif quiet >= 15:  # so that a dead reader is noticed
                    await response.write(b": still here\n\n")
                    quiet = 0
                await _until(self.stopping, STREAM_EVERY_S)
            return response
        except ConnectionError:  # the reader went away
            return response
        finally:
            self._streams -= 1

    async def manifest(self, request: web.Request) -> web.Response:
        return web.Response(body=self._manifest, content_type="application/json")

    async def metrics(self, request: web.Request) -> web.Response:
        text = self._metrics.render(self._fresh())
        return web.Response(body=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(self, request: web.Request) -> web.Response:
        if waits := self._ready():
            raise Problem(ProblemType.UNAVAILABLE, waits, retry_after=1)
        return web.Response(text="ready\n")

    def _fresh(self) -> dict[str, Any]:
        """The public state; at most five times a second it is made anew, however many ask."""
        now = time.monotonic()
        if now - self._made > _FRESH_S:
            nodes = {hotkey: status.model_dump(mode="json") for hotkey, status in self._statuses.items()}
            self._document = {**self._coordinator.status(), "nodes": nodes}
            self._made, self._rendered = now, b""
        return self._document

    def _render(self) -> bytes:
        document = self._fresh()
        if not self._rendered:
            self._rendered = json.dumps(document, separators=(",", ":")).encode()
        return self._rendered


class Audit:
    """Handlers of signed calls: sealed records and receipts, by which members check the run."""

    def __init__(self, coordinator: Coordinator, journal: Journal) -> None:
        self._coordinator = coordinator
        self._journal = journal
        self._reading = asyncio.Lock()

    async def record(self, call: Call) -> Answer:
        epoch = _epoch(call.request)
        record = self._coordinator.epoch_record(epoch)
        if record is None:
            raise Problem(ProblemType.NOT_FOUND, f"epoch {epoch} is not sealed yet, or its audits are closed")
        return Answer(await asyncio.to_thread(lambda: record.model_dump_json().encode()))

    async def receipts(self, call: Call) -> Answer:
        epoch, hotkey = _epoch(call.request), call.request.match_info["hotkey"]
        if hotkey not in self._coordinator.members:
            raise Problem(ProblemType.NOT_FOUND, f"{hotkey[:64]} is no member of this run")
        async with self._reading:  # one at a time: large answers must not pile up in memory
            body = await asyncio.to_thread(lambda: _BATCHES.dump_json(self._journal.receipts(hotkey, epoch)))
        return Answer(body)


def _epoch(request: web.Request) -> int:
    text = request.match_info["epoch"]
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise Problem(ProblemType.NOT_FOUND, "an epoch is a number")
    return int(text)


async def _until(event: asyncio.Event, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        pass
