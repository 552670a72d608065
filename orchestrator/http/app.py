"""Builds the aiohttp application of an orchestrator from its parts, with its background work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from iota.identity.http_auth import RequestVerifier
from iota.identity.keys import Hotkey
from iota.protocol.messages import Role
from iota.store import ObjectStore
from orchestrator.coordinator import Coordinator, Entry, Resumed, Tick
from orchestrator.http.admission import Admission
from orchestrator.http.background import Deletions, HeadSource, Ticker, watch_silence
from orchestrator.http.connections import ConnectionGuard
from orchestrator.http.limits import ServerLimits
from orchestrator.http.member_calls import MANIFEST_PATH, MemberCalls
from orchestrator.http.metrics import Metrics
from orchestrator.http.middleware import Middleware
from orchestrator.http.public import Audit, Public
from orchestrator.http.recorder import Recorder
from orchestrator.journal import Journal

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Deps:
    """The parts of an orchestrator. `coordinator` is fresh: the journal fills it at the start."""

    hotkey: Hotkey
    coordinator: Coordinator
    journal: Journal
    store: ObjectStore
    chain: HeadSource
    admission: Admission
    manifest: bytes
    """The data manifest, JSON."""
    limits: ServerLimits = field(default_factory=ServerLimits)
    also: Sequence[Callable[[], Coroutine[None, None, None]]] = ()
    """Further background work that lasts as long as the server, such as following the metagraph."""
    head_poll_s: float = 6.0
    """Seconds between two reads of the chain's head: about half a block's time."""


GUARD: Final = web.AppKey("guard", ConnectionGuard)
BACKGROUND: Final = web.AppKey("background", asyncio.Task[None])
"""Ends only when the application stops, or when it cannot go on."""


def make_app(deps: Deps) -> web.Application:
    """The application. At startup it replays the journal; stop it by stopping its runner."""
    metrics, limits = Metrics(), deps.limits
    recorder = Recorder(deps.journal, deps.coordinator, metrics)
    calls = MemberCalls(deps.coordinator, recorder, deps.store, deps.hotkey.ss58, deps.admission, limits)
    verifier = RequestVerifier(deps.hotkey.ss58, fence_ns=deps.journal.highest_nonce)
    recorder.highest_nonce = lambda: verifier.highest_nonce
    guard = ConnectionGuard(limits.header_s, limits.connections)
    ticker = Ticker(deps.chain, deps.coordinator, recorder, metrics, deps.head_poll_s)
    deletions = Deletions(deps.coordinator, deps.store, metrics)

    def observe(entry: Entry) -> None:
        calls.presence.observe(entry)
        if isinstance(entry, Tick):
            ticker.observe(entry)

    def ready() -> str | None:
        return None if ticker.head_known else "waiting for the chain's head"

    async def admitted(hotkey: str) -> bool:
        member = deps.coordinator.members.get(hotkey)
        return await deps.admission.allows(hotkey, *(Role if member is None else (member.role,)))

    public = Public(
        deps.coordinator, deps.hotkey.ss58, deps.manifest, calls.statuses, metrics, ready, limits.streams
    )
    middleware = Middleware(deps.hotkey, verifier, limits, metrics, admitted, guard)
    recorder.observers.append(observe)
    recorder.after.append(lambda: calls.polls.wake(deps.coordinator.take_woken()))
    recorder.after.append(deletions.look)

    async def background(app: web.Application) -> AsyncIterator[None]:
        restored = recorder.restore()
        # After the replay: a member may say again to this process what an earlier one took.
        recorder.observers.append(calls.intake.observe)
        deps.coordinator.take_woken()
        app[BACKGROUND] = asyncio.create_task(
            _work(deps, recorder, ticker, deletions, calls), name="background"
        )
        if restored:
            _log.info("%d journal entries were replayed", restored)
            await recorder.record(Resumed(at=recorder.stamp()))
        yield
        app[BACKGROUND].cancel()
        await asyncio.wait([app[BACKGROUND]])

    async def stop(app: web.Application) -> None:
        public.stopping.set()
        calls.polls.stop()

    app = web.Application(middlewares=[middleware.around], client_max_size=limits.exchange_bytes)
    app[GUARD] = guard
    app.cleanup_ctx.append(background)
    app.on_shutdown.append(stop)
    _add_public_routes(app, public)
    _add_signed_routes(app, middleware, calls, Audit(deps.coordinator, deps.journal))
    return app


def _add_public_routes(app: web.Application, public: Public) -> None:
    app.router.add_get("/v1/run", public.run)
    app.router.add_get("/v1/status", public.status)
    app.router.add_get("/v1/stream", public.stream)
    app.router.add_get(MANIFEST_PATH, public.manifest)
    app.router.add_get("/metrics", public.metrics)
    app.router.add_get("/healthz", public.healthz)
    app.router.add_get("/readyz", public.readyz)


def _add_signed_routes(
    app: web.Application, middleware: Middleware, calls: MemberCalls, audit: Audit
) -> None:
    app.router.add_post("/v1/join", middleware.signed(calls.join))
    app.router.add_post("/v1/exchange", middleware.signed(calls.exchange, calls.limits.exchange_bytes))
    app.router.add_post("/v1/leave", middleware.signed(calls.leave))
    app.router.add_post("/v1/objects", middleware.signed(calls.objects))
    app.router.add_get("/v1/audit/epochs/{epoch}", middleware.signed(audit.record))
    app.router.add_get("/v1/audit/epochs/{epoch}/receipts/{hotkey}", middleware.signed(audit.receipts))


async def _work(
    deps: Deps, recorder: Recorder, ticker: Ticker, deletions: Deletions, calls: MemberCalls
) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(recorder.run(), name="recorder")
        group.create_task(ticker.poll_head(), name="chain head")
        group.create_task(ticker.watch_deadlines(), name="deadlines")
        group.create_task(
            watch_silence(deps.coordinator, recorder, calls.presence, deps.limits.silence_s), name="silence"
        )
        group.create_task(deletions.run(), name="deletions")
        for work in deps.also:
            group.create_task(work())
