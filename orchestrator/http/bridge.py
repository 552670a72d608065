"""Calls of the Bridge: writes are journaled and decided by the coordinator, reads come from its state."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Final, TypeVar

from aiohttp import web
from pydantic import BaseModel, ValidationError

from iota.http.token_buckets import TokenBuckets
from iota.protocol.bridge import GetRequest, ListRequest, WatchRequest, WriteReply, WriteRequest
from iota.protocol.problems import Problem, ProblemType
from iota.settings.sentences import sentence
from orchestrator.bridge import (
    Bridge,
    Conflict,
    Forbidden,
    Refusal,
    Writer,
    changes_after,
    decide,
    find,
    page,
)
from orchestrator.coordinator import Bridged, Coordinator, Entry
from orchestrator.http.bridge_stream import BridgeStreams
from orchestrator.http.bridge_texts import page_text, variable_text, watch_text
from orchestrator.http.bridge_waits import BridgeWaits
from orchestrator.http.limits import ServerLimits
from orchestrator.http.middleware import Call
from orchestrator.http.recorder import Recorder
from orchestrator.intake import parse

_MAX_DESCRIBED: Final = 300
_Model = TypeVar("_Model", bound=BaseModel)


class BridgeCalls:
    """Handlers of `/v1/bridge/...`: signed ones, and open ones for what anyone may read."""

    def __init__(
        self, coordinator: Coordinator, recorder: Recorder, operator: str, limits: ServerLimits
    ) -> None:
        """`operator` is the hotkey (ss58) whose requests are the operator's: the orchestrator's own."""
        self._coordinator, self._recorder, self._operator = coordinator, recorder, operator
        self._wait_s = limits.wait_s
        self._buckets = TokenBuckets(limits.bridge_rate, limits.bridge_burst)
        self._deciding: dict[tuple[str, str], asyncio.Future[int | Refusal]] = {}
        """(hotkey, request) -> what will come of a write that is being journaled."""
        self._waits = BridgeWaits(self._bridge)
        self._streams = BridgeStreams(coordinator.spec.id, self._bridge, self._waits, limits.bridge_streams)
        recorder.observers.append(self._observe)
        recorder.after.append(self._waits.wake)

    # ---- signed --------------------------------------------------------------------------------

    async def write(self, call: Call) -> bytes:
        """POST /v1/bridge/write: a WriteReply.

        A write that the present state refuses is not journaled.

        Raises:
            Problem: CONFLICT, with the variable as it is; FORBIDDEN; REFUSED for one that would never be
                taken; NOT_JOINED; RATE_LIMITED for a member.
        """
        writer = self._writer(call.hotkey)
        request = parse(WriteRequest, call.body)
        outcome: int | Refusal | None
        if (deciding := self._deciding.get((call.hotkey, request.request))) is not None:
            outcome = await asyncio.shield(deciding)  # it came again before it was decided
        elif (outcome := self._known(writer, request)) is None:
            if not writer.operator and (wait := self._buckets.take(call.hotkey, time.monotonic())):
                raise Problem(ProblemType.RATE_LIMITED, "this hotkey writes too often", retry_after=wait)
            outcome = await self._recorded(writer, request)
        if isinstance(outcome, Refusal):
            raise _problem(outcome)
        return WriteReply(revision=outcome).model_dump_json().encode()

    async def get(self, call: Call) -> bytes:
        """POST /v1/bridge/get: a GetReply."""
        self._writer(call.hotkey)
        return self._get(parse(GetRequest, call.body), trusted=True)

    async def list(self, call: Call) -> bytes:
        """POST /v1/bridge/list: a ListReply."""
        self._writer(call.hotkey)
        return self._list(parse(ListRequest, call.body), trusted=True)

    async def watch(self, call: Call) -> bytes:
        """POST /v1/bridge/watch: a WatchReply, once there is a change, or at the timeout."""
        self._writer(call.hotkey)
        request = parse(WatchRequest, call.body)
        end = time.monotonic() + min(request.wait_s, self._wait_s)
        at = request.revision
        while True:
            found = changes_after(self._bridge, request.prefix, at, trusted=True)
            if found.snapshot or found.changes or not await self._waits.changed(end - time.monotonic()):
                return watch_text(found)
            at = found.revision  # each change is looked at once, also where it is another prefix's

    # ---- open ----------------------------------------------------------------------------------

    async def open_get(self, request: web.Request) -> web.Response:
        """GET /v1/bridge/get?name=NAME: a GetReply; what is not public is as if it were not there."""
        return _json(self._get(_query(GetRequest, request), trusted=False))

    async def open_list(self, request: web.Request) -> web.Response:
        """GET /v1/bridge/list[?prefix=PREFIX&after=NAME]: a ListReply of what is public."""
        return _json(self._list(_query(ListRequest, request), trusted=False))

    async def open_stream(self, request: web.Request) -> web.StreamResponse:
        """GET /v1/bridge/stream[?prefix=PREFIX&revision=N]: server-sent events, each a WatchReply.

        An event's id says the run and the revision; `Last-Event-ID` goes on from there.
        """
        asked = _query(WatchRequest, request)
        return await self._streams.serve(request, asked.prefix, asked.revision)

    def stop(self) -> None:
        """End all waits and streams: the server is shutting down."""
        self._waits.stop()

    # ---- parts ---------------------------------------------------------------------------------

    @property
    def _bridge(self) -> Bridge:
        return self._coordinator.state.bridge

    def _writer(self, hotkey: str) -> Writer:
        """Who asks. Raises Problem (NOT_JOINED) for neither a member nor the operator."""
        operator, member = hotkey == self._operator, self._coordinator.is_member(hotkey)
        if not operator and not member:
            raise Problem(ProblemType.NOT_JOINED, f"{hotkey} is no member of this run: POST /v1/join first")
        return Writer(hotkey, operator, member)

    def _get(self, request: GetRequest, *, trusted: bool) -> bytes:
        return variable_text(self._bridge.revision, find(self._bridge, request.name, trusted=trusted))

    def _list(self, request: ListRequest, *, trusted: bool) -> bytes:
        return page_text(page(self._bridge, request.prefix, request.after, trusted=trusted))

    def _known(self, writer: Writer, request: WriteRequest) -> int | Refusal | None:
        """What comes of a write by the present state; None where it is to be journaled."""
        done = self._bridge.known(writer.hotkey, request.request)
        now, due = self._recorder.stamp(), self._bridge.next_due()
        if done is not None or (due is not None and due <= now):  # what is due may be what refuses it
            return done
        found = decide(self._bridge, writer, request, now)
        return found if isinstance(found, Refusal) else None

    async def _recorded(self, writer: Writer, request: WriteRequest) -> int | Refusal:
        """Journal a write; what came of it. Raises Problem (UNAVAILABLE): nothing was stored."""
        at = self._recorder.stamp()
        entry = Bridged(at=at, hotkey=writer.hotkey, operator=writer.operator, write=request)
        key = writer.hotkey, request.request
        deciding: asyncio.Future[int | Refusal] = asyncio.get_running_loop().create_future()
        self._deciding[key] = deciding
        try:
            await self._recorder.record(entry)
            return deciding.result()
        except Problem as problem:
            deciding.set_exception(problem)
            deciding.exception()  # nobody else may wait for it
            raise
        finally:
            self._deciding.pop(key, None)
            deciding.cancel()

    def _observe(self, entry: Entry) -> None:
        """Note what came of a write, as soon as it is applied."""
        if isinstance(entry, Bridged):
            deciding = self._deciding.pop((entry.hotkey, entry.write.request), None)
            if deciding is not None:
                deciding.set_result(self._bridge.outcome)


def _problem(refusal: Refusal) -> Problem:
    if isinstance(refusal, Forbidden):
        return Problem(ProblemType.FORBIDDEN, refusal.reason)
    if not isinstance(refusal, Conflict):
        return Problem(ProblemType.REFUSED, refusal.reason)
    current = None if refusal.current is None else json.loads(refusal.current.json)
    return Problem(ProblemType.CONFLICT, refusal.reason, extra={"name": refusal.name, "current": current})


def _query(model: type[_Model], request: web.Request) -> _Model:
    """The request in a query. Raises Problem (MALFORMED_BODY)."""
    try:
        return model.model_validate_strings(dict(request.query))
    except ValidationError as error:
        raise Problem(ProblemType.MALFORMED_BODY, sentence(error)[:_MAX_DESCRIBED]) from None


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")
