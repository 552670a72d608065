"""The miner's shell: it joins, listens, and hands what it hears to the epoch's work or to the merge."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil

from iota.client.conversation import Conversation
from iota.client.orchestrator import OrchestratorClient
from iota.client.run_objects import RunObjects
from iota.compute.determinism import device_class
from iota.compute.engine import Engine
from iota.compute.state import StageState, load_state, save_state
from iota.data.manifest import parse_manifest
from iota.data.reader import ShardReader
from iota.data.samples import Samples
from iota.identity.keys import Hotkey
from iota.model.layout import run_shapes
from iota.outer.base import base_digest, initial_base, next_base
from iota.outer.nesterov import OuterState
from iota.outer.partition import PartError
from iota.outer.pseudo_gradient import flatten
from iota.protocol.events import (
    Admit,
    AuditsClosed,
    Delivered,
    Drop,
    FrameReady,
    LoadBase,
    MergeReady,
    Plan,
    Reroute,
    RunEnd,
    StepClose,
)
from iota.protocol.messages import (
    PROTOCOL_VERSION,
    Capabilities,
    JoinReply,
    JoinRequest,
    Ready,
    Report,
    Role,
    StoredObject,
)
from iota.settings import Recompute
from iota.spec import RunSpec
from iota.store import StoreError
from iota.store.transfer import ObjectClient
from iota.wire.store import StoreTransport
from miner.device import measured_flops, unflattened
from miner.disk import MinerDisk
from miner.duties import Duties
from miner.epoch_work import EpochWork, Traffic
from miner.merging import fetch_base, fetch_merged
from miner.ops import OpRunner, StateLost
from miner.receipt_log import ReceiptLog
from miner.retry import persist
from miner.schedule import Schedule
from miner.status_report import tell_status

log = logging.getLogger(__name__)

SETTLE_S = 10.0
LIVES = 8
"""How often a miner starts again from the run's base before it gives up."""
CACHE_BYTES = 1 << 30

T = TypeVar("T")
FetchParts = Callable[[RunSpec, RunObjects, int, Sequence[StoredObject], Mapping[str, str]], Awaitable[T]]


@dataclass(frozen=True)
class MinerOptions:
    data_dir: Path
    device: str = "cpu"
    threads: int = 1
    recompute: Recompute = Recompute.AUTO
    snapshot_bytes: int = 4 << 30


class _RunEnded(Exception):
    """Ends the task group, and with it every task of this life."""


class MinerNode:
    """One miner from its join to the end of the run."""

    def __init__(
        self,
        options: MinerOptions,
        hotkey: Hotkey,
        client: OrchestratorClient,
        objects: ObjectClient,
        make_engine: Callable[..., Engine] = Engine,
    ) -> None:
        """`make_engine` is what the adversarial tests replace."""
        self._make_engine = make_engine
        self._options, self._hotkey, self._client = options, hotkey, client
        self._raw_objects = objects
        self._objects = RunObjects(client, objects)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="device")
        self._traffic = Traffic()
        self._epoch: EpochWork | None = None
        self._base: tuple[int, OuterState, str] | None = None
        """(epoch, base, digest) that this replica holds."""

    async def run(self) -> None:
        """Take part until the run ends. Raises Problem, OrchestratorUnreachable, ValueError."""
        info = await self._client.run()
        with MinerDisk(self._options.data_dir) as disk:
            self._disk = disk
            self._log = ReceiptLog(disk.receipts, info.run, self._hotkey)
            flops = await self._on_device(measured_flops, self._options.device, self._options.threads)
            try:
                for _ in range(LIVES):
                    if await self._life(info.spec, flops):
                        return
                    log.warning("starting again from the run's base")
                raise StateLost(f"this replica lost its state {LIVES} times: see the log above")
            finally:
                self._log.close()
                self._pool.shutdown(wait=True, cancel_futures=True)

    async def _life(self, spec: RunSpec, flops: float) -> bool:
        """From a join to the end of the run (True) or to the loss of this replica's state (False)."""
        reply = await self._client.join(self._join_request(flops))
        self._spec, self._stage = spec, reply.stage
        self._continue(reply)
        await self._open(spec, reply.stage)
        self._epoch = None
        lost = False
        try:
            async with asyncio.TaskGroup() as self._tasks:
                async with Conversation(
                    self._client,
                    reply.cursor,
                    stored=reply.receipts,
                    receipts_after=self._receipts_after,
                ) as self._talk:
                    self._duties = Duties(
                        spec,
                        reply.stage,
                        self._hotkey.ss58,
                        self._disk,
                        self._objects,
                        self._tasks,
                        self._say,
                    )
                    teller = tell_status(self._talk, self._runner.seconds, self._traffic, self._state)
                    self._tasks.create_task(teller)
                    self._say_ready()
                    await self._listen()
                    await self._talk.settled(SETTLE_S)
                raise _RunEnded
        except* _RunEnded:
            pass
        except* StateLost as group:
            log.error("this replica's state is lost: %s", group.exceptions[0])
            self._disk.forget_state()
            lost = True
        return not lost

    def _join_request(self, flops: float) -> JoinRequest:
        device = device_class(self._options.device, self._options.threads)
        return JoinRequest(
            role=Role.MINER,
            versions=(PROTOCOL_VERSION,),
            capabilities=Capabilities(device=device, memory=psutil.virtual_memory().total, flops=flops),
            receipts=self._log.count,
            epoch=self._disk.newest_base(),
        )

    def _continue(self, reply: JoinReply) -> None:
        """Line up what is on disk with what the orchestrator knows."""
        if reply.receipts > self._log.count:
            self._log.continue_from(reply.receipts, reply.head)
        self._log.stored(reply.receipts)
        self._base = None
        newest = self._disk.newest_base()
        if reply.resume and newest is not None:
            base = self._disk.load_base(self._spec, reply.stage, newest)
            self._base = (newest, base, base_digest(self._spec, base))
            log.info("continuing stage %d from the base of epoch %d on disk", reply.stage, newest)
        else:
            self._disk.forget_state()
            log.info("joining as a replica of stage %d", reply.stage)

    async def _open(self, spec: RunSpec, stage: int) -> None:
        options = self._options
        engine = await self._on_device(
            lambda: self._make_engine(spec, stage, device=options.device, recompute=options.recompute)
        )
        device = device_class(options.device, options.threads)
        self._runner = OpRunner(
            spec, stage, self._hotkey, engine, self._log, self._disk, device, options.snapshot_bytes
        )
        self._runner.refuse_small_budget()
        manifest = parse_manifest(await self._client.manifest(), spec.data.manifest)
        reader = ShardReader(manifest, self._objects.piece, self._disk.cache, CACHE_BYTES)
        self._samples = Samples(spec, reader)

    # ---- listening -----------------------------------------------------------------------------

    async def _listen(self) -> None:
        async for delivered in self._talk.events():
            if isinstance(delivered.event, RunEnd):
                log.info("the run has ended: %s", delivered.event.reason)
                return
            await self._hear(delivered)

    async def _hear(self, delivered: Delivered) -> None:
        event, urls, epoch = delivered.event, delivered.urls, self._epoch
        self._duties.hear(event, urls)
        match event:
            case Plan() if epoch is not None:
                epoch.plan(event, urls)
            case Reroute() if epoch is not None:
                epoch.reroute(event, urls)
            case FrameReady() if epoch is not None:
                epoch.frame(event, urls)
            case Drop() if epoch is not None:
                epoch.drop(event)
            case StepClose() if epoch is not None:
                epoch.close(event)
            case LoadBase():
                await self._load_base(event, urls)
            case Admit():
                await self._admit(event)
            case MergeReady():
                await self._merged(event, urls)
            case AuditsClosed():
                await asyncio.to_thread(self._disk.forget_epoch, event.epoch)
            case _:
                pass

    # ---- bases ---------------------------------------------------------------------------------

    async def _load_base(self, event: LoadBase, urls: Mapping[str, str]) -> None:
        held = self._base
        if held is not None and held[0] >= event.epoch and event.digest in (None, held[2]):
            self._say_ready()
            return
        if event.parts:
            base = await self._fetched(fetch_base, f"the base of epoch {event.epoch}", event.parts, urls)
        else:
            base = await self._on_device(initial_base, self._spec, self._stage)
        digest = base_digest(self._spec, base)
        if event.digest is not None and digest != event.digest:
            raise StateLost(f"this device's base of epoch {event.epoch} has another digest than the run's")
        await self._take_base(event.epoch, base, StageState(self._named(base)))

    async def _take_base(self, epoch: int, base: OuterState, start: StageState) -> None:
        """Keep a base and the state that the epoch starts from on disk, then say so."""

        def keep() -> None:
            save_state(start, self._disk.start_state(epoch))
            self._disk.save_base(self._spec, epoch, base)

        await asyncio.to_thread(keep)
        self._base = (epoch, base, base_digest(self._spec, base))
        self._log.forget_before(epoch)
        self._say_ready()

    def _say_ready(self) -> None:
        if self._base is not None:
            self._say(Ready(epoch=self._base[0], digest=self._base[2]))

    def _named(self, base: OuterState) -> dict[str, Any]:
        return unflattened(base.weights, run_shapes(self._spec, self._stage))

    async def _admit(self, event: Admit) -> None:
        if self._base is None or self._base[0] != event.epoch:
            return  # from before this replica had its next base
        path = self._disk.start_state(event.epoch)
        state = await self._on_device(load_state, path, self._spec, self._stage)
        await self._on_device(lambda: self._runner.engine.load(state, version=event.step))
        await self._on_device(self._runner.keep_snapshot, event.epoch, event.step)
        schedule = Schedule(self._spec, self._stage, self._hotkey.ss58, event.epoch, joined=event.step)
        self._epoch = EpochWork(
            self._spec,
            schedule,
            self._runner,
            self._samples,
            self._client,
            self._talk,
            StoreTransport(self._raw_objects),
            self._tasks,
            self._pool,
            self._traffic,
        )
        self._tasks.create_task(self._train(self._epoch))

    async def _train(self, epoch: EpochWork) -> None:
        """The epoch's steps, then this replica's pseudo-gradient."""
        await epoch.work()
        number = epoch.schedule.epoch
        if self._base is None or self._base[0] != number:
            return
        base = self._base[1]

        def difference() -> Any:
            return base.weights - flatten(self._runner.engine.state(copy=False).weights).numpy()

        delta = await self._on_device(difference)
        self._duties.store_delta(number, delta)

    async def _merged(self, event: MergeReady, urls: Mapping[str, str]) -> None:
        if self._base is None or self._base[0] != event.epoch:
            if self._base is not None and self._base[0] > event.epoch:
                self._say_ready()
            return
        if self._epoch is not None and self._epoch.schedule.epoch == event.epoch:
            await self._epoch.over.wait()
        base = self._base[1]
        if event.parts:
            what = f"the merge of epoch {event.epoch}"
            merged = await self._fetched(fetch_merged, what, event.parts, urls)
            base = await asyncio.to_thread(next_base, self._spec, event.epoch, base, merged)

        def rebased() -> StageState:
            weights = self._named(base)
            if self._epoch is None:
                return StageState(weights)
            self._runner.engine.rebase(weights)
            return self._runner.engine.state()

        start = await self._on_device(rebased)
        self._epoch = None
        await self._take_base(event.epoch + 1, base, start)

    async def _fetched(
        self, fetch: FetchParts[T], what: str, parts: Sequence[StoredObject], urls: Mapping[str, str]
    ) -> T:
        """Parts that this replica cannot go on without, whatever becomes of the store meanwhile.

        Raises:
            StateLost: they are gone, or not what was announced.
        """

        async def attempt(again: bool) -> T:
            return await fetch(self._spec, self._objects, self._stage, parts, {} if again else urls)

        try:
            return await persist(f"fetching {what}", attempt)
        except (StoreError, PartError) as error:
            raise StateLost(f"{what} cannot be had: {type(error).__name__}: {error}") from error

    # ---- small parts ---------------------------------------------------------------------------

    def _say(self, report: Report) -> None:
        self._talk.say(reports=[report])

    def _receipts_after(self, count: int) -> Any:
        self._log.stored(self._talk.stored)
        return self._log.after(count)

    async def _on_device(self, call: Any, *args: Any) -> Any:
        """Run on the one worker thread, where the device's tensors live."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, call, *args)

    def _state(self) -> str:
        epoch = self._epoch
        if epoch is None:
            return "loading" if self._base is None else "ready"
        schedule = epoch.schedule
        if schedule.finished:
            return f"merging epoch {schedule.epoch}"
        return f"epoch {schedule.epoch} step {schedule.version}"
