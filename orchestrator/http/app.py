"""Builds the aiohttp application of an orchestrator and its background tasks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from iota.console.counts import counted
from iota.identity.http_auth import RequestVerifier
from iota.identity.keys import Hotkey
from iota.protocol.messages import Role
from iota.protocol.problems import Problem
from iota.store import ObjectStore
from orchestrator.coordinator import Coordinator, Resumed
from orchestrator.coordinator.owners import revoked_problem
from orchestrator.http.admission import Admission
from orchestrator.http.background import Deletions, HeadSource, Ticker, watch_silence
from orchestrator.http.base_checker import BaseChecker
from orchestrator.http.base_maker import BaseMaker
from orchestrator.http.bridge import BridgeCalls
from orchestrator.http.contacts import Contacts
from orchestrator.http.copy_reader import CopyReader
from orchestrator.http.echoes import Echoes
from orchestrator.http.limits import ServerLimits
from orchestrator.http.member_calls import MANIFEST_PATH, MemberCalls
from orchestrator.http.metrics import Metrics
from orchestrator.http.middleware import Middleware
from orchestrator.http.object_checks import ObjectChecks
from orchestrator.http.plan_store import PlanStore
from orchestrator.http.progress_log import ProgressLog
from orchestrator.http.public import Public
from orchestrator.http.public_epochs import PublicEpochs
from orchestrator.http.public_objects import PublicObjects
from orchestrator.http.public_verdicts import VerdictCalls
from orchestrator.http.recorder import Recorder
from orchestrator.http.remerger import Remerger
from orchestrator.http.statements import Statements
from orchestrator.journal import Journal

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Deps:
    """The parts of an orchestrator. `coordinator` must be new: startup replays the journal into it."""

    hotkey: Hotkey
    coordinator: Coordinator
    journal: Journal
    store: ObjectStore
    chain: HeadSource
    admission: Admission
    manifest: bytes
    """The data manifest (JSON), served as it is."""
    limits: ServerLimits = field(default_factory=ServerLimits)
    extra_tasks: Sequence[Callable[[], Coroutine[None, None, None]]] = ()
    """More background tasks that run as long as the server, such as following the metagraph."""
    head_poll_s: float = 6.0
    """Seconds between two reads of the chain's head: about half of a Bittensor block's 12 s."""
    scale: float = 1.0
    """Factor on the pauses while the chain is away, for tests."""


BACKGROUND: Final = web.AppKey("background", asyncio.Task[None])
"""Ends only when the application stops, or fails: then nothing can be recorded any more."""


def make_app(deps: Deps) -> web.Application:
    """The application. Its startup replays the journal; cleaning up its runner stops its tasks."""
    metrics, limits = Metrics(), deps.limits
    statements = Statements(deps.coordinator.spec.id, deps.hotkey)
    recorder = Recorder(deps.journal, deps.coordinator, metrics)
    checks = ObjectChecks(deps.coordinator, deps.store, recorder, metrics)
    bases = BaseChecker(deps.coordinator, recorder, deps.store, metrics, deps.scale)
    calls = MemberCalls(
        deps.coordinator,
        recorder,
        deps.store,
        deps.hotkey.ss58,
        statements,
        deps.admission,
        limits,
        checks,
        bases,
    )
    verifier = RequestVerifier(deps.hotkey.ss58, fence_ns=deps.journal.highest_nonce)
    recorder.highest_nonce = lambda: verifier.highest_nonce
    ticker = Ticker(deps.chain, deps.coordinator, recorder, metrics, deps.head_poll_s, deps.scale)
    deletions = Deletions(deps.coordinator, deps.store, metrics)
    plans = PlanStore(deps.coordinator, deps.store, metrics)
    remerger = Remerger(deps.coordinator, recorder, deps.store, metrics, deps.scale)
    reader = CopyReader(deps.coordinator, recorder, deps.store, metrics, deps.scale)
    maker = BaseMaker(deps.coordinator, recorder, deps.store, metrics, deps.scale)

    def ready() -> str | None:
        return None if ticker.head_known else "waiting for the chain's head"

    async def refusal(hotkey: str) -> Problem | None:
        if hotkey == deps.hotkey.ss58:
            return None  # the operator, who has the Bridge's calls; no other takes who has not joined
        member = deps.coordinator.members.get(hotkey)
        owner, roles = (hotkey, tuple(Role)) if member is None else (member.owner, (member.role,))
        if deps.coordinator.state.owners.is_revoked(owner, hotkey):
            return revoked_problem(owner, hotkey)
        return None if await deps.admission.allows(owner, *roles) else deps.admission.refusal(owner)

    def heard(hotkey: str) -> float | None:
        ago_s = calls.presence.silent_s(hotkey, time.monotonic())
        return None if ago_s is None else time.time() - ago_s

    bridge = BridgeCalls(deps.coordinator, recorder, deps.hotkey.ss58, limits)
    public = Public(
        deps.coordinator,
        deps.hotkey,
        deps.manifest,
        calls.statuses,
        heard,
        metrics,
        ready,
        limits.streams,
    )
    middleware = Middleware(deps.hotkey, verifier, limits, metrics, refusal)
    recorder.observers += [calls.presence.observe, ticker.observe]
    recorder.after.append(lambda: calls.polls.wake(deps.coordinator.take_woken()))
    recorder.after += [deletions.wake, plans.wake, reader.wake, remerger.wake, maker.wake]

    async def background(app: web.Application) -> AsyncIterator[None]:
        restored = recorder.restore()
        deps.coordinator.take_woken()
        progress = ProgressLog(deps.coordinator)
        recorder.observers.append(progress.observe)
        app[BACKGROUND] = asyncio.create_task(
            _work(
                deps,
                recorder,
                ticker,
                deletions,
                plans,
                reader,
                remerger,
                maker,
                checks,
                bases,
                calls,
                progress,
            ),
            name="background",
        )
        if restored:
            _log.info("%s of the journal replayed", counted(restored, "entry"))
            await recorder.record(Resumed(at=recorder.stamp()))
        yield
        app[BACKGROUND].cancel()
        await asyncio.wait([app[BACKGROUND]])

    async def stop(app: web.Application) -> None:
        public.stopping.set()
        calls.polls.stop()
        bridge.stop()

    app = web.Application(middlewares=[middleware.around])
    app.cleanup_ctx.append(background)
    app.on_shutdown.append(stop)
    signed, epochs = middleware.signed, PublicEpochs(deps.coordinator, deps.journal, statements)
    objects = PublicObjects(deps.coordinator, deps.store, limits.url_s)
    app.add_routes(
        [
            web.get("/v1/run", public.run),
            web.get("/v1/status", public.status),
            web.get("/v1/stream", public.stream),
            web.get("/v1/members/{hotkey}", public.member),
            web.get(MANIFEST_PATH, public.manifest),
            web.get("/v1/epochs/{epoch}/verdicts", VerdictCalls(deps.coordinator).verdicts),
            web.get("/v1/bases", objects.epochs),
            web.get("/v1/bases/{epoch}/{stage}", objects.base),
            web.get("/v1/objects", objects.url),
            web.get("/v1/epochs/{epoch}/seal", epochs.seal),
            web.get("/v1/epochs/{epoch}/record", epochs.record),
            web.get("/v1/epochs/{epoch}/record/{hotkey}", epochs.part),
            web.get("/v1/epochs/{epoch}/receipts/{hotkey}", epochs.receipts),
            web.get("/v1/epochs/{epoch}/links", epochs.links),
            web.get("/metrics", public.metrics),
            web.get("/healthz", public.healthz),
            web.get("/readyz", public.readyz),
            web.get("/v1/bridge/get", bridge.open_get),
            web.get("/v1/bridge/list", bridge.open_list),
            web.get("/v1/bridge/stream", bridge.open_stream),
            web.post("/v1/bridge/write", signed(bridge.write)),
            web.post("/v1/bridge/get", signed(bridge.get)),
            web.post("/v1/bridge/list", signed(bridge.list)),
            web.post("/v1/bridge/watch", signed(bridge.watch)),
            web.post("/v1/join", signed(calls.join, admits=True)),
            web.post("/v1/exchange", signed(calls.exchange, limits.exchange_bytes)),
            web.post("/v1/leave", signed(calls.leave)),
            web.post("/v1/revoke", signed(calls.revoke)),
            web.post("/v1/objects", signed(calls.objects)),
            web.post("/v1/contacts", signed(Contacts(deps.coordinator, calls.intake).contacts)),
            web.post("/v1/echo", signed(Echoes().echo, limits.echo_bytes)),
        ]
    )
    return app


async def _work(
    deps: Deps,
    recorder: Recorder,
    ticker: Ticker,
    deletions: Deletions,
    plans: PlanStore,
    reader: CopyReader,
    remerger: Remerger,
    maker: BaseMaker,
    checks: ObjectChecks,
    bases: BaseChecker,
    calls: MemberCalls,
    progress: ProgressLog,
) -> None:
    """Run all background tasks; if one fails, the others are cancelled."""
    async with asyncio.TaskGroup() as group:
        group.create_task(recorder.run(), name="recorder")
        group.create_task(ticker.poll_head(), name="chain head")
        group.create_task(ticker.watch_deadlines(), name="deadlines")
        group.create_task(
            watch_silence(deps.coordinator, recorder, calls.presence, deps.limits.silence_s), name="silence"
        )
        group.create_task(deletions.run(), name="deletions")
        group.create_task(plans.run(), name="plans")
        group.create_task(reader.run(), name="merged parts")
        group.create_task(remerger.run(), name="disputed merges")
        group.create_task(maker.run(), name="disputed bases")
        group.create_task(checks.run(), name="object checks")
        group.create_task(bases.run(), name="stored bases")
        group.create_task(progress.run(), name="progress log")
        for work in deps.extra_tasks:
            group.create_task(work())
