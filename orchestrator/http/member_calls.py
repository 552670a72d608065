"""Handlers of calls by members: the intake decides; these journal the entry and answer."""

from __future__ import annotations

import time
from collections import Counter
from typing import Final

from iota.protocol.events import Delivered, ExchangeReply
from iota.protocol.messages import (
    PROTOCOL_VERSION,
    ExchangeRequest,
    JoinReply,
    JoinRequest,
    LeaveRequest,
    NodeStatus,
    ObjectReply,
    ObjectRequest,
)
from iota.protocol.problems import Problem, ProblemType
from iota.store import ObjectStore
from orchestrator.coordinator import Coordinator
from orchestrator.http.admission import Admission
from orchestrator.http.limits import ServerLimits
from orchestrator.http.long_polls import Polls, Woken
from orchestrator.http.middleware import Answer, Call
from orchestrator.http.presence import Presence
from orchestrator.http.recorder import Recorder
from orchestrator.http.urls import deliver, presign
from orchestrator.intake import Intake, parse

MANIFEST_PATH: Final = "/v1/manifest"
_MAX_OPEN: Final = 2
"""Exchanges of one member at a time: one that waits, and the newer one that releases it."""


class MemberCalls:
    """Handlers of members' calls; `admission` is the chain's or the allow-list's word."""

    def __init__(
        self,
        coordinator: Coordinator,
        recorder: Recorder,
        store: ObjectStore,
        orchestrator: str,
        admission: Admission,
        limits: ServerLimits,
    ) -> None:
        """`orchestrator` is this server's hotkey (ss58)."""
        self._coordinator = coordinator
        self._recorder = recorder
        self._store = store
        self._orchestrator = orchestrator
        self._admission = admission
        self.limits = limits
        self._open: Counter[str] = Counter()
        self.intake = Intake(coordinator)
        self.polls = Polls()
        self.presence = Presence(limits.silence_s)
        self.statuses: dict[str, NodeStatus] = {}
        """The last status of each node. Informational: not journaled, and nothing is decided by it."""

    async def join(self, call: Call) -> Answer:
        request = parse(JoinRequest, call.body)
        if not await self._admission.allows(call.hotkey, request.role):
            raise Problem(ProblemType.NOT_A_MEMBER, f"{call.hotkey} may not join this run as {request.role}")
        async with self._recorder.joins, self._recorder.of(call.hotkey):
            entry = self.intake.join(call.hotkey, request, self._recorder.stamp())
            self.presence.hear(call.hotkey, time.monotonic())
            await self._recorder.record(entry)
            member = self.intake.member(call.hotkey)
        reply = JoinReply(
            run=self._coordinator.spec.id,
            spec=self._coordinator.spec,
            orchestrator=self._orchestrator,
            version=PROTOCOL_VERSION,
            stage=member.stage,
            cursor=member.cursor_start,
            receipts=member.receipts,
            head=member.head,
            resume=member.resume,
            manifest_url=MANIFEST_PATH,
        )
        return Answer(reply.model_dump_json().encode())

    async def exchange(self, call: Call) -> Answer:
        hotkey = call.hotkey
        self.intake.member(hotkey)  # before the body is parsed: a stranger's body costs nothing
        if self._open[hotkey] >= _MAX_OPEN:
            raise Problem(ProblemType.RATE_LIMITED, f"{_MAX_OPEN} exchanges are open already", retry_after=1)
        self._open[hotkey] += 1
        try:
            request = parse(ExchangeRequest, call.body)
            self.presence.hear(hotkey, time.monotonic())
            self.polls.supersede(hotkey)
            await self._take(hotkey, request)
        finally:
            self._open[hotkey] -= 1
            if not self._open[hotkey]:
                del self._open[hotkey]
        return await self._news(hotkey, request)

    async def leave(self, call: Call) -> Answer:
        parse(LeaveRequest, call.body)
        async with self._recorder.of(call.hotkey):
            if entry := self.intake.leave(call.hotkey, self._recorder.stamp()):
                await self._recorder.record(entry)
        return Answer(b"{}")

    async def objects(self, call: Call) -> Answer:
        self.intake.member(call.hotkey)
        access = self.intake.access(call.hotkey, parse(ObjectRequest, call.body))
        expires_s = self.limits.url_s
        reply = ObjectReply(url=presign(self._store, access, expires_s), expires=time.time() + expires_s)
        return Answer(reply.model_dump_json().encode())

    async def _take(self, hotkey: str, request: ExchangeRequest) -> None:
        """Journal what an exchange says."""
        async with self._recorder.of(hotkey):
            if back := self.intake.heard(hotkey, self._recorder.stamp()):
                await self._recorder.record(back)
            if request.status is not None:
                self.statuses[hotkey] = request.status
            if said := self.intake.exchange(hotkey, request, self._recorder.stamp()):
                await self._recorder.record(said, request.receipts.signature if request.receipts else "")

    async def _news(self, hotkey: str, request: ExchangeRequest) -> Answer:
        """The events after the cursor, as soon as there are any; none when a newer exchange came."""
        found = self._coordinator.events_after(hotkey, request.cursor)
        wait_s = min(request.wait_s, self.limits.wait_s, self.limits.silence_s / 3)
        if not found and wait_s > 0:
            woken = await self.polls.wait(hotkey, wait_s)
            if woken is Woken.NEWS:
                found = self._coordinator.events_after(hotkey, request.cursor)
        member = self.intake.member(hotkey)
        delivered: tuple[Delivered, ...] = ()
        if found:
            chosen = found[: self.limits.events]
            delivered = await deliver(self._coordinator.spec, self._store, member, chosen, self.limits.url_s)
        reply = ExchangeReply(events=delivered, receipts=member.receipts)
        return Answer(reply.model_dump_json().encode())
