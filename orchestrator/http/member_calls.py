"""Handlers of members' requests: they ask the intake, journal its entry, and answer."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import Final

from iota.http.token_buckets import TokenBuckets
from iota.protocol.events import ExchangeReply
from iota.protocol.messages import (
    PROTOCOL_VERSION,
    ExchangeRequest,
    JoinReply,
    JoinRequest,
    LeaveRequest,
    Method,
    NodeStatus,
    ObjectRequest,
)
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.workers import Revocation, RevokeReply
from iota.store import ObjectStore
from orchestrator.coordinator import Coordinator
from orchestrator.http.admission import Admission
from orchestrator.http.base_checker import BaseChecker
from orchestrator.http.delivery import Delivery
from orchestrator.http.limits import ServerLimits
from orchestrator.http.long_polls import Polls, Woken
from orchestrator.http.middleware import Call
from orchestrator.http.object_checks import ObjectChecks
from orchestrator.http.object_replies import reply_to
from orchestrator.http.presence import Presence
from orchestrator.http.recorder import Recorder
from orchestrator.http.statements import Statements
from orchestrator.intake import Intake, parse

MANIFEST_PATH: Final = "/v1/manifest"
_MAX_OPEN: Final = 2
"""Open exchanges of one member: one that waits for events, and a newer one that ends its wait."""


class MemberCalls:
    """Handlers of signed requests. Each returns the body of a 200 (JSON) and raises Problem for a refusal."""

    def __init__(
        self,
        coordinator: Coordinator,
        recorder: Recorder,
        store: ObjectStore,
        hotkey: str,
        statements: Statements,
        admission: Admission,
        limits: ServerLimits,
        checks: ObjectChecks,
        bases: BaseChecker,
    ) -> None:
        """`hotkey` (ss58) is this server's, which signs the `statements`."""
        self._checks, self._bases = checks, bases
        self._coordinator = coordinator
        self._recorder = recorder
        self._store = store
        self._orchestrator, self._statements = hotkey, statements
        self._delivery = Delivery(coordinator.spec, store, statements, limits.url_s)
        self._admission = admission
        self.limits = limits
        self._open: Counter[str] = Counter()
        self._parts = TokenBuckets(limits.parts_rate, limits.parts_burst)
        self._joins = TokenBuckets(limits.join_rate, limits.join_burst)
        self.intake = Intake(coordinator, places=limits.workers)
        self.polls = Polls()
        self.presence = Presence(limits.silence_s)
        self.statuses: dict[str, NodeStatus] = {}
        """The last status of each node. Informational only, so it is not journaled."""

    async def join(self, call: Call) -> bytes:
        """POST /v1/join: a JoinReply."""
        request = parse(JoinRequest, call.body)
        owner = call.hotkey if request.certificate is None else request.certificate.owner
        if not await self._admission.allows(owner, request.role):
            raise self._admission.refusal(owner)
        async with self._recorder.join_lock, self._recorder.lock_for(call.hotkey):
            entry = self.intake.join(call.hotkey, request, self._recorder.stamp())
            if wait := self._joins.take(call.hotkey, time.monotonic()):
                raise Problem(ProblemType.RATE_LIMITED, "this hotkey joins too often", retry_after=wait)
            self.presence.note(call.hotkey, time.monotonic())
            await self._recorder.record(entry)
            member = self.intake.member(call.hotkey)
            self.polls.supersede(call.hotkey)  # an exchange that waits is of a process before this one
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
            session=member.session,
            open_epochs=self._coordinator.open_epochs(),
            manifest_url=MANIFEST_PATH,
        )
        return reply.model_dump_json().encode()

    async def exchange(self, call: Call) -> bytes:
        """POST /v1/exchange: journals the new content; replies once there are events, or at the timeout."""
        hotkey = call.hotkey
        self.intake.member(hotkey)  # before parsing: a body from a hotkey that has not joined costs nothing
        if self._open[hotkey] >= _MAX_OPEN:
            raise Problem(ProblemType.RATE_LIMITED, f"{_MAX_OPEN} exchanges are open already", retry_after=1)
        self._open[hotkey] += 1
        try:
            request = parse(ExchangeRequest, call.body)
            self.presence.note(hotkey, time.monotonic())
            self.polls.supersede(hotkey)
            missing = await self._journal(hotkey, request)
        finally:
            self._open[hotkey] -= 1
            if not self._open[hotkey]:
                del self._open[hotkey]
        return await self._reply(hotkey, request, missing)

    async def leave(self, call: Call) -> bytes:
        """POST /v1/leave: an empty document; a repeated leave changes nothing."""
        parse(LeaveRequest, call.body)
        async with self._recorder.lock_for(call.hotkey):
            if entry := self.intake.leave(call.hotkey, self._recorder.stamp()):
                await self._recorder.record(entry)
        return b"{}"

    async def revoke(self, call: Call) -> bytes:
        """POST /v1/revoke: a RevokeReply; a repeated revocation changes nothing."""
        revocation = parse(Revocation, call.body)
        worker = revocation.worker
        async with AsyncExitStack() as locks:
            await locks.enter_async_context(self._recorder.join_lock)
            if worker in self._coordinator.members:  # nothing that it has said may follow its revocation
                await locks.enter_async_context(self._recorder.lock_for(worker))
            if entry := self.intake.revoke(call.hotkey, revocation, self._recorder.stamp()):
                await self._recorder.record(entry)
            member = self._coordinator.members.get(worker)
        joined = member is not None and member.owner == call.hotkey
        return RevokeReply(joined=joined).model_dump_json().encode()

    async def objects(self, call: Call) -> bytes:
        """POST /v1/objects: an ObjectReply with a presigned URL for one key, or with those of its parts."""
        self.intake.member(call.hotkey)
        request = parse(ObjectRequest, call.body)
        access = self.intake.access(call.hotkey, request)
        large = access.method is Method.PUT and self._store.in_parts(access.size)
        if large and (wait := self._parts.take(call.hotkey, time.monotonic())):
            raise Problem(ProblemType.RATE_LIMITED, "too many large objects at once", retry_after=wait)
        reply = await reply_to(self._store, access, request.upload, self.limits.url_s)
        return reply.model_dump_json().encode()

    async def _journal(self, hotkey: str, request: ExchangeRequest) -> tuple[str, ...]:
        """Journal the new content of an exchange, and that a lost member is back.

        Returns keys of objects that it announces and that are not there: these parts of it are left out.
        """
        async with self._recorder.lock_for(hotkey):
            self.intake.present(hotkey, request.session)
            if back := self.intake.returned(hotkey, self._recorder.stamp()):
                await self._recorder.record(back)
            if request.status is not None:
                self.statuses[hotkey] = request.status
            missing: tuple[str, ...] = ()
            said = self.intake.exchange(hotkey, request, self._recorder.stamp())
            if said is not None:
                said, missing = await self._checks.checked(said)
                said = None if said is None else self._bases.keep_back(said)
                self.presence.note(hotkey, time.monotonic())  # it was silent because it waited for this
            if said is not None:
                said = said.model_copy(update={"at": self._recorder.stamp()})
                await self._recorder.record(said, request.receipts.signature if request.receipts else "")
            return missing

    async def _reply(self, hotkey: str, request: ExchangeRequest, missing: tuple[str, ...]) -> bytes:
        """The events after the cursor; waits until there are any, a newer exchange comes, or the timeout."""
        limit = self.limits.events
        found = self._coordinator.events_after(hotkey, request.cursor, limit)
        wait_s = 0.0 if missing else min(request.wait_s, self.limits.wait_s, self.limits.silence_s / 3)
        if not found and wait_s > 0 and await self.polls.wait(hotkey, wait_s) is Woken.EVENTS:
            found = self._coordinator.events_after(hotkey, request.cursor, limit)
        member = self.intake.present(hotkey, request.session)
        events = await self._delivery.of(member, found)
        acknowledged = None
        if request.receipts is not None:  # the numbers at one moment: nothing is awaited in between
            sealed = self._coordinator.sealed_epochs
            acknowledged = self._statements.acknowledge(hotkey, member.receipts, member.head, sealed)
        reply = ExchangeReply(
            events=events, receipts=member.receipts, acknowledged=acknowledged, missing=missing
        )
        return reply.model_dump_json().encode()
