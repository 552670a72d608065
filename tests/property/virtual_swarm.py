"""A swarm in virtual time: the real coordinator and the real schedules, with faults on demand.

Nothing sleeps and nothing computes; every delay is drawn from a seed.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from blake3 import blake3

from iota.codec.shapes import payload_size
from iota.objects import BaseKey, DeltaKey, MergedKey, part_count
from iota.protocol.events import (
    Admit,
    BaseAssign,
    Drop,
    Event,
    FrameReady,
    LoadBase,
    MergeAssign,
    MergeReady,
    Plan,
    Reroute,
    RunEnd,
    StepClose,
)
from iota.protocol.messages import (
    BadValue,
    BaseStored,
    Capabilities,
    Delta,
    Direction,
    ExchangeRequest,
    FrameName,
    FrameNotice,
    JoinRequest,
    Merged,
    Ready,
    Report,
    Role,
    StoredObject,
)
from iota.protocol.receipts import GENESIS, MAX_RECEIPTS, OpKind, Receipt, ReceiptBatch
from iota.spec import (
    BoundarySpec,
    Codec,
    DataSpec,
    LayoutSpec,
    ModelSpec,
    OptimizerSpec,
    OuterSpec,
    Pipeline,
    RunSpec,
    ScheduleSpec,
)
from miner.schedule import Action, Op, Schedule
from orchestrator.coordinator import Back, Coordinator, Entry, Lost, Resumed, Tick
from orchestrator.coordinator.merging import part_bytes
from orchestrator.coordinator.state import Limits
from orchestrator.intake import Intake

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
SILENCE_S = 15.0
KINDS = {Action.FORWARD: OpKind.FORWARD, Action.LOSS: OpKind.LOSS, Action.BACKWARD: OpKind.BACKWARD}


def tiny_spec(
    *,
    stages: int,
    replicas: int,
    epochs: int,
    steps: int,
    microbatches: int,
    pipeline: Pipeline,
    credit: int,
) -> RunSpec:
    return RunSpec(
        model=ModelSpec(
            vocab_size=16, hidden_size=8, layers=stages, heads=2, kv_heads=1, ffn_size=8, rope_theta=1e4
        ),
        layout=LayoutSpec(cuts=(1,) * stages, replicas=replicas),
        boundary=BoundarySpec(codec=Codec.IDENTITY),
        data=DataSpec(manifest="0" * 64, sequence_length=4, sequences=1),
        schedule=ScheduleSpec(
            epochs=epochs, steps=steps, microbatches=microbatches, pipeline=pipeline, credit=credit
        ),
        optimizer=OptimizerSpec(lr=0.1),
        outer=OuterSpec(),
    )


def hotkey(n: int) -> str:
    return "5" + "".join(ALPHABET[(n + 7 * k) % len(ALPHABET)] for k in range(47))


def digest(*parts: object) -> str:
    return blake3(repr(parts).encode()).hexdigest()


@dataclass
class VirtualMiner:
    """One miner process; `disk` survives a kill, the rest does not."""

    swarm: VirtualSwarm
    hotkey: str
    disk: dict[tuple[int, int, int, int, OpKind], Receipt] = field(default_factory=dict)
    chain: list[Receipt] = field(default_factory=list)
    base: int | None = None
    stage: int = -1
    alive: bool = False
    life: int = 0
    cursor: int = 0
    schedule: Schedule | None = None
    routes: dict[tuple[int, int], int] = field(default_factory=dict)
    busy: bool = False
    slow: float = 1.0
    ended: bool = False
    order: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """step -> (microbatch, attempt) in the order in which backwards ran."""
    applied: list[tuple[int, int, tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]] = field(
        default_factory=list
    )
    """(epoch, step, counted, ran) of each STEP of an undisturbed life."""
    delta_given: int = -1

    def start(self, *, fresh: bool = False) -> None:
        self.life += 1
        self.alive, self.busy, self.schedule = True, False, None
        self.order = {}
        if fresh:
            self.disk, self.base = {}, None
        request = JoinRequest(
            role=Role.MINER,
            versions=(1,),
            capabilities=Capabilities(device="virtual", memory=1, flops=1.0),
            receipts=0 if fresh else len(self.chain),
            epoch=self.base,
        )
        self.swarm.apply(self.swarm.intake.join(self.hotkey, request, self.swarm.now))
        member = self.swarm.coordinator.members[self.hotkey]
        self.stage, self.cursor = member.stage, member.cursor_start
        self.chain = self.chain[: max(member.receipts, len(self.chain) if member.resume else 0)]
        if not member.resume:
            self.disk, self.base = {}, None
        self.swarm.heard(self.hotkey)
        self.poll()

    def kill(self) -> None:
        self.alive = False
        self.life += 1

    # ---- network -------------------------------------------------------------------------------

    def poll(self) -> None:
        """Fetch events after a network delay, and again every few seconds."""
        life = self.life

        def arrive() -> None:
            if self.alive and self.life == life:
                self.swarm.heard(self.hotkey)
                for seq, event in self.swarm.coordinator.events_after(self.hotkey, self.cursor):
                    self.cursor = seq
                    self.on_event(event)
                self.go_on()

        self.swarm.later(self.swarm.delay(), arrive)

    def say(self, frames: tuple[FrameNotice, ...] = (), reports: tuple[Report, ...] = ()) -> None:
        """Post news; it may be lost on the way and come again, or come twice."""
        life = self.life

        def arrive() -> None:
            if not self.alive or self.life != life:
                return
            stored = self.swarm.coordinator.members[self.hotkey].receipts
            receipts = tuple(r for r in self.chain if r.seq > stored)[:MAX_RECEIPTS]
            self.swarm.heard(self.hotkey)
            batch = ReceiptBatch(receipts=receipts, signature="0" * 128)
            request = ExchangeRequest(cursor=self.cursor, receipts=batch, frames=frames, reports=reports)
            for _ in range(2 if self.swarm.chance(0.1) else 1):
                if said := self.swarm.intake.exchange(self.hotkey, request, self.swarm.now):
                    self.swarm.apply(said)
            self.poll()

        self.swarm.later(self.swarm.delay(), arrive)

    # ---- events --------------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        spec = self.swarm.spec
        match event:
            case LoadBase():
                if self.base is None or self.base < event.epoch:
                    self.base = event.epoch
                    given = event.digest or digest("base", 0, self.stage)
                    self.say(reports=(Ready(epoch=event.epoch, digest=given),))
            case Admit():
                self.schedule = Schedule(spec, self.stage, self.hotkey, event.epoch, joined=event.step)
                self.order, self.routes = {}, {}
            case RunEnd():
                self.ended = True
            case MergeAssign():
                stored = StoredObject(
                    key=str(MergedKey(spec.id, event.epoch, event.stage, event.part, self.hotkey)),
                    digest=digest("merged", event.epoch, event.stage, event.part, event.contributions),
                    size=event.contributions[0].stored.size,
                )
                self.say(
                    reports=(Merged(epoch=event.epoch, stage=event.stage, part=event.part, stored=stored),)
                )
            case MergeReady():
                if self.base == event.epoch:
                    self.base = event.epoch + 1
                    self.schedule = None
                if self.base == event.epoch + 1:
                    self.say(reports=(Ready(epoch=self.base, digest=digest("base", self.base, self.stage)),))
            case BaseAssign():
                parts = tuple(
                    StoredObject(
                        key=str(BaseKey(spec.id, event.epoch, self.stage, n)), digest="0" * 64, size=1
                    )
                    for n in range(part_count(spec, self.stage))
                )
                known = self.swarm.coordinator.state.bases.digests.get((event.epoch, self.stage))
                if known is not None:  # else it is a repeat from an epoch whose audits are closed
                    self.say(reports=(BaseStored(epoch=event.epoch, digest=known, parts=parts),))
            case Plan() | Reroute() | FrameReady() | Drop() | StepClose() if self.schedule is not None:
                self.on_work(self.schedule, event)
            case _:
                pass

    def on_work(self, schedule: Schedule, event: Plan | Reroute | FrameReady | Drop | StepClose) -> None:
        match event:
            case Plan():
                schedule.plan(event)
            case Reroute():
                schedule.reroute(event)
            case Drop():
                schedule.drop(event)
            case StepClose():
                self.swarm.check_close(event)
                schedule.close(event)
            case FrameReady():
                name, life = event.notice.name, self.life
                if name.epoch != schedule.epoch:
                    return

                def fetched() -> None:
                    if self.alive and self.life == life and self.schedule is schedule:
                        schedule.frame(name.step, name.microbatch, name.direction)
                        self.go_on()

                self.swarm.later(self.swarm.delay(), fetched)

    # ---- compute -------------------------------------------------------------------------------

    def go_on(self) -> None:
        if self.busy or self.schedule is None or not self.alive:
            return
        op = self.schedule.next_op()
        if op is None:
            return
        self.busy = True
        schedule, life = self.schedule, self.life

        def finished() -> None:
            if not self.alive or self.life != life:
                return
            self.busy = False
            if self.schedule is schedule:
                self.finish(schedule, op)
            self.go_on()

        self.swarm.later(self.slow * self.swarm.rng.uniform(0.05, 0.3), finished)

    def finish(self, schedule: Schedule, op: Op) -> None:
        if op.action is Action.STEP:
            ran = tuple(self.order.get(op.step, ()))
            self.applied.append((op.epoch, op.step, op.counted, ran))
            self.record(op, OpKind.STEP)
            schedule.done(op)
            reports: tuple[Report, ...] = ()
            if schedule.finished and self.swarm.state.phase != "finished":
                sizes = part_bytes(self.swarm.state, self.stage)
                parts = tuple(
                    StoredObject(
                        key=str(DeltaKey(self.swarm.spec.id, op.epoch, self.stage, self.hotkey, n)),
                        digest=digest(self.hotkey, n),
                        size=s,
                    )
                    for n, s in enumerate(sizes)
                )
                reports = (Delta(epoch=op.epoch, parts=parts),)
            self.say(reports=reports)
            return
        if self.swarm.chance(self.swarm.nan_rate):
            self.say(reports=(BadValue(epoch=op.epoch, step=op.step, microbatch=op.microbatch),))
        self.record(op, KINDS[op.action])
        schedule.done(op)
        if op.action is not Action.FORWARD:
            self.order.setdefault(op.step, []).append((op.microbatch, op.attempt))
        forward = op.action is Action.FORWARD
        if forward or self.stage > 0:
            name = FrameName(
                epoch=op.epoch,
                step=op.step,
                microbatch=op.microbatch,
                attempt=op.attempt,
                stage=self.stage,
                direction=Direction.FORWARD if forward else Direction.BACKWARD,
            )
            self.say(frames=(FrameNotice(name=name, digest=digest(name), size=self.swarm.frame_bytes),))
        else:
            self.say()

    def record(self, op: Op, kind: OpKind) -> None:
        key = (op.epoch, op.step, op.microbatch, op.attempt, kind)
        if key in self.disk:
            return
        receipt = Receipt(
            seq=len(self.chain) + 1,
            epoch=op.epoch,
            step=op.step,
            microbatch=op.microbatch,
            attempt=op.attempt,
            stage=self.stage,
            kind=kind,
            version=op.version,
            output=digest(key),
            loss=1.0 if kind is OpKind.LOSS else None,
            started=self.swarm.now,
            ended=self.swarm.now,
            device="virtual",
            previous=self.chain[-1].content_digest() if self.chain else GENESIS,
        )
        self.disk[key] = receipt
        self.chain.append(receipt)


class VirtualSwarm:
    def __init__(
        self,
        spec: RunSpec,
        seed: int,
        *,
        latency: float = 0.2,
        nan_rate: float = 0.0,
        limits: Limits | None = None,
    ) -> None:
        self.spec, self.rng, self.latency, self.nan_rate = spec, random.Random(seed), latency, nan_rate
        self.limits = limits or Limits(first_s=20.0, merge_first_s=30.0, start_s=30.0)
        self.coordinator = Coordinator(spec, self.limits)
        self.intake = Intake(self.coordinator, verify=lambda *_: True)
        self.frame_bytes = payload_size(spec) + 1
        self.entries: list[Entry] = []
        self.now = 1000.0
        self.queue: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0
        self.miners: dict[str, VirtualMiner] = {}
        self.last_heard: dict[str, float] = {}
        self.closes: dict[tuple[int, int], int] = {}
        self.tick()

    @property
    def state(self):  # type: ignore[no-untyped-def]
        return self.coordinator.state

    def later(self, delay: float, action: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.queue, (self.now + delay, self.count, action))

    def delay(self) -> float:
        return self.rng.uniform(0, self.latency)

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def heard(self, key: str) -> None:
        self.last_heard[key] = self.now
        member = self.coordinator.members.get(key)
        if member is not None and not member.live:
            self.apply(Back(at=self.now, hotkey=key))

    def apply(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.coordinator.apply(entry)
        self.intake.observe(entry)
        assert not self.state.incidents.internal, self.state.incidents.internal[0]
        for key in sorted(self.coordinator.take_woken()):
            if key in self.miners and self.miners[key].alive:
                self.miners[key].poll()

    def tick(self) -> None:
        """Once a virtual second: silence, deadlines, the chain's head, and the nodes' regular polls."""
        for key, miner in self.miners.items():
            member = self.coordinator.members.get(key)
            if member and member.live and not miner.alive and self.now > self.last_heard[key] + SILENCE_S:
                self.apply(Lost(at=self.now, hotkey=key))
            if miner.alive:
                self.last_heard[key] = self.now
                miner.go_on()
        due = self.coordinator.next_deadline()
        if int(self.now) % 12 == 0 or (due is not None and due <= self.now):
            block = int(self.now) // 12
            self.apply(Tick(at=self.now, block=block, block_hash=digest(block)))
        self.later(1.0, self.tick)

    def add_miner(self) -> VirtualMiner:
        key = hotkey(len(self.miners))
        miner = VirtualMiner(self, key)
        self.miners[key] = miner
        miner.start()
        return miner

    def restart_orchestrator(self) -> None:
        """Kill the coordinator and build it again from its journal."""
        again = Coordinator(self.spec, self.limits)
        for entry in self.entries:
            again.apply(entry)
        again.take_woken()
        self.coordinator.take_woken()
        assert again.state == self.coordinator.state
        self.coordinator = again
        self.intake = Intake(again, verify=lambda *_: True)
        self.apply(Resumed(at=self.now))
        for miner in self.miners.values():
            if miner.alive:
                miner.poll()

    def check_close(self, event: StepClose) -> None:
        step = self.state.epochs[event.epoch].steps
        if event.step < len(step):
            assert all(mb.ended is not None for mb in step[event.step].microbatches), "a step closed early"

    def run(self, until: Callable[[], bool], *, limit_s: float) -> None:
        end = self.now + limit_s
        while not until():
            at, _, action = heapq.heappop(self.queue)
            if at > end:
                raise AssertionError(f"not done after {limit_s} virtual seconds: {self.coordinator.status()}")
            self.now = max(self.now, at)
            action()
