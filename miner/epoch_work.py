"""One epoch's work at one replica: frames in, ops on the device, frames and receipts out, all at once.

What runs next is the schedule's decision; this file only moves things.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from blake3 import blake3

from iota.compute.errors import BadValueError
from iota.compute.names import Microbatch
from iota.data.reader import Tokens
from iota.data.samples import Samples, needs_tokens
from iota.protocol.client import OrchestratorClient
from iota.protocol.conversation import Conversation
from iota.protocol.events import Drop, FrameReady, Plan, Reroute, StepClose
from iota.protocol.keys import signing_bytes, verify
from iota.protocol.messages import BadValue, Direction, FrameMissing, Method, ObjectRequest
from iota.protocol.problems import Problem
from iota.spec import RunSpec
from iota.store import StoreError
from iota.wire.frame import DOMAIN, Frame, FrameError, decode_frame
from iota.wire.transport import Transport
from miner.ops import Inputs, OpRunner, OutFrame
from miner.schedule import Action, Op, Schedule

log = logging.getLogger(__name__)

TRANSFER_S = 120.0
"""How long one frame may take to be stored or fetched, retries included."""


@dataclass
class Traffic:
    """What went over the boundaries, for people to look at."""

    sent_frames: int = 0
    sent_bytes: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    tokens: int = 0


@dataclass
class EpochWork:
    """The moving parts of one epoch. `tasks` owns every transfer; `pool` is the one worker thread."""

    spec: RunSpec
    schedule: Schedule
    runner: OpRunner
    samples: Samples
    client: OrchestratorClient
    talk: Conversation
    transport: Transport
    tasks: asyncio.TaskGroup
    pool: ThreadPoolExecutor
    traffic: Traffic
    inputs: dict[tuple[int, int], Inputs] = field(default_factory=dict)
    routes: dict[tuple[int, int], tuple[str, ...]] = field(default_factory=dict)
    """(step, microbatch) -> the replica of each stage, as far as it is known here."""
    urls: dict[str, str] = field(default_factory=dict)
    tokens: dict[tuple[int, int], asyncio.Task[Tokens]] = field(default_factory=dict)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """All steps of the epoch are applied."""

    # ---- events --------------------------------------------------------------------------------

    def plan(self, event: Plan, urls: Mapping[str, str]) -> None:
        mine = self.schedule.plan(event)
        self.urls.update(urls)
        for index in mine:
            self.routes[event.step, index] = tuple(
                event.miner(index, stage) for stage in range(self.spec.layout.stages)
            )
            self._prepare(event.step, index)
        self.wake.set()

    def reroute(self, event: Reroute, urls: Mapping[str, str]) -> None:
        self.urls.update(urls)
        if event.epoch != self.schedule.epoch:
            return
        before = self.schedule.attempt(event.step, event.microbatch)
        if self.schedule.reroute(event):
            self._prepare(event.step, event.microbatch)
        elif event.stage == self.runner.stage:
            self._forget(event.step, event.microbatch, before)
        self.routes[event.step, event.microbatch] = event.route
        self.wake.set()

    def drop(self, event: Drop) -> None:
        if self.schedule.drop(event):
            self._forget(event.step, event.microbatch, self.schedule.attempt(event.step, event.microbatch))
        self.wake.set()

    def close(self, event: StepClose) -> None:
        self.schedule.close(event)
        self.wake.set()

    def frame(self, event: FrameReady, urls: Mapping[str, str]) -> None:
        if event.notice.name.epoch == self.schedule.epoch:
            self.tasks.create_task(self._fetch(event, urls))

    def _prepare(self, step: int, index: int) -> None:
        self.inputs.setdefault((step, index), Inputs())
        if (step, index) not in self.tokens and needs_tokens(self.spec, self.runner.stage):
            reading = self.samples.microbatch(self.schedule.epoch, step, index)
            self.tokens[step, index] = self.tasks.create_task(reading)

    def _forget(self, step: int, index: int, attempt: int) -> None:
        """Free what a dropped or withdrawn microbatch holds on the device."""
        mb = Microbatch(self.schedule.epoch, step, index, attempt)
        self.pool.submit(self.runner.engine.drop, mb)

    # ---- frames --------------------------------------------------------------------------------

    async def _fetch(self, event: FrameReady, urls: Mapping[str, str]) -> None:
        name, notice = event.notice.name, event.notice
        started = time.perf_counter()
        try:
            data = await self.transport.receive(urls[name.key(self.spec.id)], notice.size, TRANSFER_S)
            frame = self._checked(data, event)
        except (StoreError, FrameError, KeyError) as error:
            log.warning("frame %s cannot be used: %s", name.key("run"), error)
            reason = f"{type(error).__name__}: {error}"[:300]
            self.talk.say(reports=[FrameMissing(name=name, reason=reason)])
            return
        self.traffic.seconds += time.perf_counter() - started
        work = self.inputs.setdefault((name.step, name.microbatch), Inputs())
        if name.direction is Direction.FORWARD:
            work.stage_input = frame
        else:
            work.gradient = frame
        self.schedule.frame(name.step, name.microbatch, name.direction)
        self.wake.set()

    def _checked(self, data: bytes, event: FrameReady) -> Frame:
        if blake3(data).hexdigest() != event.notice.digest:
            raise FrameError("not the bytes that were announced")
        frame = decode_frame(data, self.spec, _verify_header)
        if frame.header.name != event.notice.name or frame.header.sender != event.sender:
            raise FrameError("another frame, or another sender, than was announced")
        return frame

    async def _send(self, frame: OutFrame) -> None:
        key = frame.notice.name.key(self.spec.id)
        started = time.perf_counter()
        try:
            url = self.urls.pop(key, None)
            if url is None:
                url = (await self.client.objects(self._put(key, frame))).url
            await self.transport.send(url, frame.data, TRANSFER_S)
        except (StoreError, Problem) as error:
            # The coordinator's deadline re-issues what never arrives; the op stays credited.
            log.error("frame %s could not be stored: %s", key, error)
            return
        self.traffic.seconds += time.perf_counter() - started
        self.traffic.sent_frames += 1
        self.traffic.sent_bytes += len(frame.data)
        self.talk.say(frames=[frame.notice], receipts=self.runner.log.count)

    @staticmethod
    def _put(key: str, frame: OutFrame) -> ObjectRequest:
        return ObjectRequest(method=Method.PUT, key=key, size=len(frame.data))

    # ---- compute -------------------------------------------------------------------------------

    async def work(self) -> None:
        """Run ops until the epoch is over."""
        loop = asyncio.get_running_loop()
        while not self.schedule.finished:
            op = self.schedule.next_op()
            if op is None:
                self.wake.clear()
                started = time.perf_counter()
                await self.wake.wait()
                self.traffic.waited += time.perf_counter() - started
                continue
            await self._give_tokens(op)
            try:
                receiver = self._receiver(op)
                frame = await loop.run_in_executor(self.pool, self.runner.run, op, self.inputs, receiver)
            except BadValueError as error:
                self._bad(op, error)
                continue
            self._ended(op, frame)
        self.over.set()

    async def _give_tokens(self, op: Op) -> None:
        wanted = [i for i, _ in op.counted] if op.action is Action.STEP else [op.microbatch]
        for index in wanted:
            work = self.inputs.setdefault((op.step, index), Inputs())
            if work.tokens is None and (reading := self.tokens.pop((op.step, index), None)) is not None:
                work.tokens = await reading
            elif work.tokens is None:
                work.tokens = self.samples.nothing()

    def _receiver(self, op: Op) -> str | None:
        towards = self.runner.stage + (1 if op.action is Action.FORWARD else -1)
        route = self.routes.get((op.step, op.microbatch))
        return route[towards] if route is not None and 0 <= towards <= self.spec.last_stage else None

    def _ended(self, op: Op, frame: OutFrame | None) -> None:
        closed = self.schedule.is_closed(op.step)
        self.schedule.done(op)
        if op.action is Action.STEP:
            for key in [k for k in self.inputs if k[0] <= op.step]:
                del self.inputs[key]
                self.tokens.pop(key, None)
                self.routes.pop(key, None)
        elif op.action is not Action.FORWARD:
            self.traffic.tokens += self.spec.data.tokens
        if frame is not None and not closed:
            self.tasks.create_task(self._send(frame))
        else:
            self.talk.say(receipts=self.runner.log.count)

    def _bad(self, op: Op, error: BadValueError) -> None:
        log.error("microbatch %d of step %d is dropped: %s", op.microbatch, op.step, error)
        report = BadValue(epoch=op.epoch, step=op.step, microbatch=op.microbatch)
        self.talk.say(reports=[report])
        self.schedule.drop(Drop(epoch=op.epoch, step=op.step, microbatch=op.microbatch))


def _verify_header(text: bytes, signature: bytes, hotkey: str) -> bool:
    return verify(signing_bytes(DOMAIN, text), signature, hotkey)
