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

from iota.client.conversation import Conversation
from iota.client.orchestrator import OrchestratorClient
from iota.compute.errors import BadValueError
from iota.compute.names import Microbatch
from iota.data.reader import Tokens
from iota.data.samples import Samples, needs_tokens
from iota.identity.signatures import signing_bytes, verify
from iota.objects import FrameKey
from iota.protocol.events import Drop, FrameReady, Plan, Reroute, StepClose
from iota.protocol.messages import BadValue, Direction, FrameMissing, FrameName, Method, ObjectRequest
from iota.protocol.problems import Problem
from iota.spec import RunSpec
from iota.store import StoreError
from iota.wire.frame import DOMAIN, Frame, FrameError, decode_frame
from iota.wire.transport import Transport
from miner.ops import Inputs, OpRunner, OutFrame
from miner.retry import FIRST_PAUSE_S, Patience, persist
from miner.schedule import Action, Op, Schedule

log = logging.getLogger(__name__)

TRANSFER_S = 120.0
"""How long one try to store or to fetch a frame may take."""


@dataclass
class Traffic:
    """What went over the boundaries, for people to look at."""

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
    first_pause_s: float = FIRST_PAUSE_S
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
        if event.epoch == self.schedule.epoch:
            self.routes.pop((event.step, event.microbatch), None)
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
            self.tokens[step, index] = self.tasks.create_task(self._read_tokens(step, index))

    async def _read_tokens(self, step: int, index: int) -> Tokens:
        return await persist(
            f"reading the tokens of microbatch {index} of step {step}",
            lambda _: self.samples.microbatch(self.schedule.epoch, step, index),
        )

    def _forget(self, step: int, index: int, attempt: int) -> None:
        """Free what a dropped or withdrawn microbatch holds on the device."""
        mb = Microbatch(self.schedule.epoch, step, index, attempt)
        self.pool.submit(self.runner.engine.drop, mb)

    # ---- frames --------------------------------------------------------------------------------

    async def _fetch(self, event: FrameReady, urls: Mapping[str, str]) -> None:
        """Bring an announced frame here: whatever the store does, until nobody needs it."""
        name, key = event.notice.name, str(FrameKey(self.spec.id, event.notice.name))
        patience, url = Patience(f"fetching frame {key}", self.first_pause_s), urls.get(key)
        # A replica that started again needs the frames of a step that is closed and not applied here yet.
        while name.step >= self.schedule.version:
            started = time.perf_counter()
            try:
                if url is None:
                    url = (await self.client.objects(ObjectRequest(method=Method.GET, key=key))).url
                data = await self.transport.receive(url, event.notice.size, TRANSFER_S)
                self._take(name, self._checked(data, event))
                self.traffic.seconds += time.perf_counter() - started
                return
            except FrameError as error:
                self._miss(name, error)
                return
            except (StoreError, Problem) as error:
                if not await patience.after(error):
                    self._miss(name, error)
                    return
            url = None

    def _miss(self, name: FrameName, error: Exception) -> None:
        log.warning("frame %s cannot be used: %s", name, error)
        reason = f"{type(error).__name__}: {error}"[:300]
        self.talk.say(reports=[FrameMissing(name=name, reason=reason)])

    def _take(self, name: FrameName, frame: Frame) -> None:
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
        """Store a frame and announce it: whatever the store does, until nobody waits for it."""
        name, key = frame.notice.name, str(FrameKey(self.spec.id, frame.notice.name))
        patience, url = Patience(f"storing frame {key}", self.first_pause_s), self.urls.pop(key, None)
        while self._awaited(name):
            started = time.perf_counter()
            try:
                if url is None:
                    url = (await self.client.objects(self._put(key, frame))).url
                await self.transport.send(url, frame.data, TRANSFER_S)
            except (StoreError, Problem) as error:
                if not await patience.after(error):
                    # A microbatch that has ended, or an object that the store will never take.
                    log.error("frame %s could not be stored: %s", key, error)
                    break
                url = None
                continue
            self.traffic.seconds += time.perf_counter() - started
            self.talk.say(frames=[frame.notice], receipts=self.runner.log.count)
            return
        self.talk.say(receipts=self.runner.log.count)

    def _awaited(self, name: FrameName) -> bool:
        """Whether a frame made here is still waited for: neither dropped, nor given away, nor closed."""
        if self.schedule.is_closed(name.step):
            return False
        route = self.routes.get((name.step, name.microbatch))
        mine = route is not None and route[self.runner.stage] == self.schedule.hotkey
        return mine and self.schedule.attempt(name.step, name.microbatch) == name.attempt

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
