"""The shell of one replica life: performs the core's effects and reports their outcomes as facts."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Final

from iota.client.conversation import Conversation
from iota.client.evidence_files import SealBook
from iota.client.orchestrator import OrchestratorClient
from iota.client.run_objects import RunObjects
from iota.console.counts import counted
from iota.console.watch import Watch
from iota.data.samples import Samples
from iota.identity.signatures import signing_bytes
from iota.protocol.events import Admit, Drop, Plan, Reroute, StepClose
from iota.protocol.messages import BadValue, JoinReply, Report
from iota.protocol.receipts import OpKind, ReceiptBatch
from iota.protocol.words import WORD_DOMAIN, signed_word
from iota.wire.transport import IncomingFrame, Transport
from miner.bases import BaseKeeper
from miner.core import effects, facts
from miner.core.core import ReplicaCore
from miner.device import DeviceThread
from miner.duty_worker import DutyWorker
from miner.frames import FrameMover
from miner.kept_frames import KeptFrames, OpInput
from miner.late_bases import LateBases
from miner.merge_receipts import MergeReceipts
from miner.op_records import StateLost
from miner.ops import OpRunner
from miner.own_record import OwnRecord
from miner.plan_check import check_plan
from miner.progress_line import Position
from miner.retry import FIRST_PAUSE_S
from miner.status_report import report_status
from miner.told import Told
from miner.trainer import Trainer

log = logging.getLogger(__name__)

CHECKED_AT_ONCE: Final = 2
"""Arrived frames that are checked and written at the same time."""
SETTLE_S: Final = 10.0
"""At the run's end: how long to wait for the orchestrator to store the last reports."""


class _RunEnded(Exception):
    """Cancels the task group, and with it every task of this life."""


@dataclass
class Replica:
    """One life: from a join to the run's end, or to the loss of the replica's state."""

    reply: JoinReply
    hotkey: str
    client: OrchestratorClient
    objects: RunObjects
    transport: Transport
    device: DeviceThread
    runner: OpRunner
    samples: Samples
    watch: Watch
    _urls: Mapping[str, str] = field(default_factory=dict)
    """Presigned URLs of the last event. ApplyMerge may come later than its event, but the core does not
    listen in between, so its URLs are still the last ones. With overlap it may be those of another event, and
    asks for its own."""
    _idle_since: float | None = None
    """`perf_counter` seconds since which no op could run; None while one runs."""
    _deletions: list[asyncio.Task[None]] = field(default_factory=list)
    """One for each closed epoch."""

    def __post_init__(self) -> None:
        spec, stage, runner = self.runner.spec, self.reply.stage, self.runner
        self._activity = runner.activity
        self._trainer = Trainer(spec, runner, self.samples, self.device, self._activity)
        self._core = ReplicaCore(
            spec, stage, self.hotkey, self._trainer.reads_tokens, resumed=runner.disk.has_frames()
        )
        self.transport.listen_for(self._core.expects, self._core.earliest_step)
        self._kept = KeptFrames(spec, runner.disk.frame)
        self._bases = (
            LateBases(spec, runner, self.objects)
            if spec.overlaps
            else BaseKeeper(spec, runner, self.objects, self.device)
        )
        self._frames = FrameMover(
            self.transport, self._core.wants, self._core.expects, self._kept, self._activity
        )
        self._duties = DutyWorker(
            spec,
            stage,
            self.hotkey,
            runner.disk,
            self.objects,
            MergeReceipts(runner),
            self._core.wants,
            self._core.duties.turn,
        )
        book = SealBook(runner.disk.root, spec.id, self.reply.orchestrator)
        self._told = Told(book, self.hotkey, runner.log)
        self._record = OwnRecord(self.client, self.hotkey)
        self._listening = asyncio.Event()

    async def live(self, base: int | None) -> bool:
        """Take part, starting from the base of epoch `base` on disk unless it is None.

        Returns True at the run's end. Returns False if the replica's state is lost; it is then deleted.
        """
        lost_state = False
        try:
            async with asyncio.TaskGroup() as self._tasks:
                async with Conversation(
                    self.client,
                    self.reply.cursor,
                    session=self.reply.session,
                    stored=self.reply.receipts,
                    receipts_after=self._receipts_after,
                    on_missing=lambda keys: self._start(self._missing(keys)),
                    watch=self.watch,
                ) as self._talk:
                    self._tasks.create_task(report_status(self._talk, self._activity, self._position))
                    self._tasks.create_task(self._record.watch())
                    self._tasks.create_task(self._receive())
                    if base is not None:
                        self._take(await self._bases.from_disk(base))
                    await self._listen()
                    await asyncio.gather(*self._deletions)  # the run ends right after its last audits
                    await self._talk.flush(SETTLE_S)
                    await self._record.look()  # the last audits' verdicts
                raise _RunEnded
        except* _RunEnded:
            pass
        except* StateLost as group:
            log.error("this replica's state is lost: %s", group.exceptions[0])
            self.runner.disk.forget_state()
            lost_state = True
        finally:
            await self.transport.close()
            await asyncio.to_thread(self.runner.close)
        return not lost_state

    async def _listen(self) -> None:
        async for delivered in self._talk.events():
            check_plan(self.runner.spec, self.reply, self.hotkey, delivered)
            seal = self._told.hear(delivered)
            self.transport.on_event(delivered)
            self._urls = delivered.urls
            self._take(facts.Heard(delivered.event))
            if seal is not None:
                self._start(self._told.check(self.client, seal, self._talk.acknowledged))
            if self._core.ended is not None:
                log.info("the run has ended: %s", self._core.ended)
                return
            await self._listening.wait()

    async def _receive(self) -> None:
        room = asyncio.Semaphore(CHECKED_AT_ONCE)
        async for arrived in self.transport.incoming():
            await room.acquire()
            task = self._tasks.create_task(self._keep(arrived))
            task.add_done_callback(lambda _: room.release())

    async def _keep(self, arrived: IncomingFrame) -> None:
        match await self._frames.keep(arrived):
            case (fact, frame):
                self._take_frame(fact, frame)
            case facts.FrameLost() as lost:
                self._take(lost)
            case None:
                pass

    async def _find(self, effect: effects.FindFrames) -> facts.FramesSought:
        """Look for frames of before on this disk, one after another."""
        for name, sender in effect.frames:
            if found := await self._frames.find(name, sender):
                self._take_frame(*found)
        return facts.FramesSought(tuple(name for name, _ in effect.frames))

    def _take_frame(self, fact: facts.FrameArrived, frame: OpInput) -> None:
        if self._core.reads(fact):
            self._trainer.take_frame(frame)
        self._take(fact)

    def _take(self, fact: facts.Fact) -> None:
        for effect in self._core.take(fact):
            self._perform(effect)
        if _changes_expectations(fact):
            self.transport.expectations_changed()
        if self._core.listening:
            self._listening.set()
        else:
            self._listening.clear()
        self._count_waiting()

    def _perform(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Say():
                receipts = self.runner.log.count if effect.receipts else 0
                reports = map(self._signed, effect.reports)
                self._talk.send(receipts=receipts, frames=effect.frames, reports=reports)
            case effects.ForgetMicrobatch():
                self._trainer.forget(effect)
            case effects.RunOp():
                self._start(self._trainer.run(effect, self._take))
            case effects.ReadTokens():
                self._start(self._trainer.read_tokens(effect))
            case effects.WriteCommit():
                self._start(self._trainer.commit(effect))
            case effects.LoadState():
                self._start(self._trainer.load(effect))
            case effects.FetchFrame():
                self._start(self._frames.fetch(effect))
            case effects.SendFrame():
                self._start(self._frames.send(effect))
            case effects.ResendFrame() | effects.SendAgain():
                self._start(self._frames.send_kept(effect))
            case effects.FindFrames():
                self._start(self._find(effect))
            case effects.DenyFrame():
                self._kept.deny(effect.name)
                self._trainer.deny_frame(effect.name)
            case effects.LoseState():
                raise StateLost(effect.reason)
            case effects.FetchBase():
                self._start(self._bases.fetch(effect, self._urls))
            case effects.ApplyMerge():
                self._start(self._bases.apply(effect, self._urls))
            case effects.ForgetEpoch():
                self._record.wake()
                deletion = asyncio.to_thread(self.runner.disk.forget_epoch, effect.epoch)
                self._deletions.append(self._start(deletion))
            case _:
                self._start(self._duties.do(effect, self._urls))

    def _start(self, work: Awaitable[facts.Fact | None]) -> asyncio.Task[None]:
        """Run one effect as a task, and give its outcome to the core."""

        async def carry_out() -> None:
            fact = await work
            if fact is not None:
                self._take(fact)

        return self._tasks.create_task(carry_out())

    def _signed(self, report: Report) -> Report:
        """The report, with this miner's signature where it is a word that may stand in a record."""
        if not isinstance(report, BadValue):
            return report
        word = signed_word(self.reply.run, report.epoch, report.step, report.microbatch)
        signature = self.runner.hotkey.sign(signing_bytes(WORD_DOMAIN, word))
        return report.model_copy(update={"signature": signature.hex()})

    async def _missing(self, keys: tuple[str, ...]) -> facts.ObjectsMissing:
        """Say it, and wait a little: a store that loses objects again and again must not be flooded."""
        log.warning("the store does not have what was announced, and it is stored again: %s", keys[0])
        await asyncio.sleep(FIRST_PAUSE_S)
        return facts.ObjectsMissing(keys)

    def _position(self) -> Position:
        self._count_waiting()  # where nothing arrives, nothing else counts it
        epoch, step, in_flight = self._core.progress
        schedule, state = self.runner.spec.schedule, self._core.state
        if found := self._told.accusations:
            state += f"; {counted(found, 'contradiction')} of the orchestrator in evidence/"
        return Position(epoch, step, schedule.steps, self.reply.stage, in_flight, schedule.credit, state)

    def _receipts_after(self, count: int) -> ReceiptBatch | None:
        self.runner.log.stored(self._talk.stored)
        return self.runner.log.after(count)

    def _count_waiting(self) -> None:
        now = time.perf_counter()
        if self._idle_since is not None:
            self._activity.wait_s += now - self._idle_since
        self._idle_since = now if self._core.idle else None


def _changes_expectations(fact: facts.Fact) -> bool:
    """Whether another thing may be thought of a frame that somebody wants to push, once `fact` is taken."""
    match fact:
        case facts.Heard(Plan() | Reroute() | Admit() | StepClose() | Drop()) | facts.StateLoaded():
            return True
        case facts.OpDone(op):
            return op.kind is OpKind.STEP
        case _:
            return False
