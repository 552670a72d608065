"""The calls of members: join, exchange, leave, objects."""

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
from orchestrator.coordinator import Back, Coordinator, Joined, Left, Member, Said
from orchestrator.http.edge import Answer, Call
from orchestrator.http.limits import ServerLimits
from orchestrator.http.membership import Admission
from orchestrator.http.polls import Polls, Presence, Woken
from orchestrator.http.recorder import Recorder
from orchestrator.http.urls import deliver, presign
from orchestrator.intake.bodies import parse
from orchestrator.intake.repeats import Repeats
from orchestrator.intake.rights import access_for
from orchestrator.intake.validation import check_frames, check_reports, new_receipts

MANIFEST_PATH: Final = "/v1/manifest"
_OPEN: Final = 2
_REFUSALS: Final = {problem.value: problem for problem in ProblemType}


class Conversations:
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
        self._coordinator = coordinator
        self._recorder = recorder
        self._store = store
        self._orchestrator = orchestrator
        self._admission = admission
        self._limits = limits
        self._busy: Counter[str] = Counter()
        self.polls = Polls()
        self.presence = Presence(limits.silence_s)
        self.repeats = Repeats()
        self.statuses: dict[str, NodeStatus] = {}
        """What nodes last said of themselves; not journaled, nothing is decided by it."""

    async def join(self, call: Call) -> Answer:
        request = parse(JoinRequest, call.body)
        if not await self._admission.allows(call.hotkey, request.role):
            raise Problem(ProblemType.NOT_A_MEMBER, f"{call.hotkey} may not join this run as {request.role}")
        if PROTOCOL_VERSION not in request.versions:
            raise _version_mismatch(request.versions)
        async with self._recorder.joins, self._recorder.of(call.hotkey):
            refusal = self._coordinator.refusal(call.hotkey, request)
            if refusal is not None:
                raise Problem(_REFUSALS.get(refusal.type, ProblemType.REFUSED), refusal.detail)
            self.presence.hear(call.hotkey, time.monotonic())
            await self._recorder.record(
                Joined(at=self._recorder.stamp(), hotkey=call.hotkey, request=request)
            )
            member = self._member(call.hotkey)
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
        self._member(hotkey)
        if self._busy[hotkey] >= _OPEN:
            raise Problem(ProblemType.RATE_LIMITED, f"{_OPEN} exchanges are open already", retry_after=1)
        self._busy[hotkey] += 1
        try:
            request = parse(ExchangeRequest, call.body)
            self.presence.hear(hotkey, time.monotonic())
            self.polls.supersede(hotkey)
            await self._take(hotkey, request)
        finally:
            self._busy[hotkey] -= 1
            if not self._busy[hotkey]:
                del self._busy[hotkey]
        return await self._news(hotkey, request)

    async def leave(self, call: Call) -> Answer:
        parse(LeaveRequest, call.body)
        async with self._recorder.of(call.hotkey):
            if not self._member(call.hotkey).left:
                await self._recorder.record(Left(at=self._recorder.stamp(), hotkey=call.hotkey))
        return Answer(b"{}")

    async def objects(self, call: Call) -> Answer:
        member = self._member(call.hotkey)
        access = access_for(self._coordinator, member, parse(ObjectRequest, call.body))
        expires_s = self._limits.url_s
        reply = ObjectReply(url=presign(self._store, access, expires_s), expires=time.time() + expires_s)
        return Answer(reply.model_dump_json().encode())

    async def _take(self, hotkey: str, request: ExchangeRequest) -> None:
        """Record what is new in an exchange."""
        async with self._recorder.of(hotkey):
            if hotkey in self.presence.lost:
                await self._recorder.record(Back(at=self._recorder.stamp(), hotkey=hotkey))
            if request.status is not None:
                self.statuses[hotkey] = request.status
            if not request.has_news:
                return
            member = self._member(hotkey)
            check_frames(self._coordinator.spec, member, request.frames)
            check_reports(self._coordinator.state, member, request.reports)
            batch = request.receipts
            receipts = new_receipts(self._coordinator.state, member, batch) if batch else ()
            frames = self.repeats.fresh_frames(hotkey, request.frames)
            reports = self.repeats.fresh_reports(hotkey, request.reports)
            if receipts or frames or reports:
                said = Said(
                    at=self._recorder.stamp(),
                    hotkey=hotkey,
                    receipts=receipts,
                    frames=frames,
                    reports=reports,
                )
                await self._recorder.record(said, batch.signature if batch else "")
                self.repeats.remember(hotkey, (*frames, *reports))

    async def _news(self, hotkey: str, request: ExchangeRequest) -> Answer:
        """The events after the cursor, as soon as there are any; none when a newer exchange came."""
        found = self._coordinator.events_after(hotkey, request.cursor)
        wait_s = min(request.wait_s, self._limits.wait_s, self._limits.silence_s / 3)
        if not found and wait_s > 0:
            woken = await self.polls.wait(hotkey, wait_s)
            if woken is Woken.NEWS:
                found = self._coordinator.events_after(hotkey, request.cursor)
        member = self._member(hotkey)
        delivered: tuple[Delivered, ...] = ()
        if found:
            chosen = found[: self._limits.events]
            delivered = await deliver(self._coordinator, self._store, member, chosen, self._limits.url_s)
        reply = ExchangeReply(events=delivered, receipts=member.receipts)
        return Answer(reply.model_dump_json().encode())

    def _member(self, hotkey: str) -> Member:
        member = self._coordinator.members.get(hotkey)
        if member is None:
            raise Problem(ProblemType.NOT_JOINED, f"{hotkey} has not joined this run: POST /v1/join first")
        return member


def _version_mismatch(theirs: tuple[int, ...]) -> Problem:
    older = max(theirs, default=0) < PROTOCOL_VERSION
    who = "the node: install the current release" if older else "the orchestrator, or use an older node"
    return Problem(
        ProblemType.VERSION_MISMATCH,
        f"this run speaks protocol {PROTOCOL_VERSION}, the node {list(theirs)}; upgrade {who}",
        extra={"orchestrator_versions": [PROTOCOL_VERSION], "node_versions": list(theirs)},
    )
