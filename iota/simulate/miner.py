"""A miner in virtual time: the real core, whose effects end after drawn delays."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from iota.data.samples import needs_tokens
from iota.protocol.events import Event, StepClose
from iota.protocol.frames import Direction, FrameKept, FrameName, FrameNotice
from iota.protocol.merges import merge_output
from iota.protocol.messages import (
    PROTOCOL_VERSION,
    Capabilities,
    ExchangeRequest,
    JoinRequest,
    Merged,
    Report,
    Role,
)
from iota.protocol.receipts import OpKind, SignedHeader
from iota.simulate.device import VirtualDevice
from iota.simulate.disk import VirtualDisk
from iota.simulate.duties import report_of
from iota.simulate.names import digest
from iota.simulate.receipts import commit_fields, op_fields
from iota.wire.expectation import Expectation
from iota.wire.frame import FrameHeader, frame_size, make_header
from iota.wire.transport import OutgoingFrame
from miner.core import effects, facts
from miner.core.core import ReplicaCore
from miner.core.schedule import Op

if TYPE_CHECKING:
    from iota.simulate.swarm import VirtualSwarm

Counted = tuple[tuple[int, int], ...]
"""(microbatch, attempt) of each backward, in order."""


@dataclass
class Applied:
    """A STEP that ran, with the gradients that it had to sum and the order of the backwards before it."""

    epoch: int
    step: int
    counted: Counted
    ran: Counted


@dataclass
class VirtualMiner:
    """One miner process, of which only `disk` survives a kill."""

    swarm: VirtualSwarm
    hotkey: str
    device: VirtualDevice
    disk: VirtualDisk = field(default_factory=VirtualDisk)
    alive: bool = False
    applied: list[Applied] = field(default_factory=list)
    """The STEPs of all lives, for the tests."""
    _life: int = 0
    _joined: tuple[int, int] = (0, 0)
    """(epoch, version) at which its replica joined."""
    _committed_at: float = 0.0
    """When the newest COMMIT is hashed: they end in order."""
    _recorded_at: float = 0.0
    """When the newest op's result is on disk."""
    _cursor: int = 0
    _announced: int = 0
    """Number of receipts that may be sent: an exchange sends none before the core says so."""
    _inbox: deque[Event] = field(default_factory=deque)
    _inputs: dict[tuple[int, int], dict[Direction, SignedHeader]] = field(default_factory=dict)
    """(step, microbatch) -> the frames that have arrived."""
    _ran: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    """(microbatch, attempt) of the backwards by step, in the order in which they ran."""

    def start(self, *, fresh: bool = False) -> None:
        """Join the run, with the disk as it is or, if `fresh`, with an empty one."""
        self._life += 1
        self.alive = True
        if fresh:
            self.disk = VirtualDisk()
        request = JoinRequest(
            role=Role.MINER,
            versions=(PROTOCOL_VERSION,),
            capabilities=Capabilities(device="virtual", memory=1, flops=1.0),
            receipts=self.disk.count,
            epoch=self.disk.newest_base,
        )
        member = self.swarm.join(self.hotkey, request)
        self._cursor, self._announced, self._recorded_at = member.cursor_start, 0, 0.0
        self._inbox.clear()
        self.disk.continue_from(member.receipts, member.head)
        spec, stage = self.swarm.spec, member.stage
        resumed = bool(self.disk.frames.kept)
        self.core = ReplicaCore(spec, stage, self.hotkey, needs_tokens(spec, stage), resumed)
        newest = self.disk.newest_base
        if not member.resume:
            self.disk.begin_anew()
        elif newest is not None:
            self._take(facts.BaseHeld(newest, self.disk.bases[newest]))
        self.poll()

    def kill(self) -> None:
        """End the process; what it had scheduled does not happen any more."""
        self.alive = False
        self._life += 1

    def poll(self) -> None:
        """Fetch the new events, after a link's delay."""
        self._later(self.swarm.links.delay(), self._receive)

    def _receive(self) -> None:
        events, stored = self.swarm.news(self.hotkey, self._cursor)
        self.disk.stored(stored)
        for seq, event in events:
            self._cursor = seq
            self._inbox.append(event)
        self._listen()

    def _listen(self) -> None:
        while self._inbox and self.core.listening:
            event = self._inbox.popleft()
            if isinstance(event, StepClose):
                self.swarm.check_close(event)
            self._take(facts.Heard(event))

    def take_pushed(self, signed: SignedHeader) -> bool:
        """Another miner pushes a frame. Whether this one has it now, which it acknowledges."""
        header, frames = FrameHeader.model_validate_json(signed.header), self.disk.frames
        if not self.alive or self.core.expects(header) not in (Expectation.EXPECTED, Expectation.OVER):
            return False
        if self.core.expects(header) is Expectation.EXPECTED and header.name not in frames.kept:
            frames.kept[header.name] = signed
            if self.swarm.rng.random() < self.swarm.deny_rate:
                frames.bad.add(header.name)
            if self.swarm.rng.random() < self.swarm.lose_rate:
                del frames.kept[header.name]
                return True
        if frames.kept.get(header.name) != signed:
            return False
        pushed = facts.Pushed(header.sender, digest(header.name, "pushed"))
        self._later(0.0, lambda: self._arrive(facts.FrameArrived(header.name, pushed)))
        return True

    def _arrive(self, fact: facts.FrameArrived) -> None:
        name = fact.name
        if self.core.reads(fact):
            self._inputs.setdefault((name.step, name.microbatch), {})[name.direction] = self.disk.frames.kept[
                name
            ]
        self._take(fact)
        self._listen()

    def _find(self, effect: effects.FindFrames) -> facts.FramesSought:
        """Look for frames of before on the disk."""
        for name, sender in effect.frames:
            signed = self.disk.frames.kept.get(name)
            if signed is not None and FrameHeader.model_validate_json(signed.header).sender == sender:
                self._arrive(facts.FrameArrived(name, facts.Pushed(sender, digest(name, "pushed"))))
        return facts.FramesSought(tuple(name for name, _ in effect.frames))

    def _deny(self, name: FrameName) -> None:
        self.disk.frames.kept.pop(name, None)
        self._inputs.get((name.step, name.microbatch), {}).pop(name.direction, None)

    def _take(self, fact: facts.Fact) -> None:
        for effect in self.core.take(fact):
            self._perform(effect)

    def _later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Schedule `action`, to be skipped if this life has ended by then."""
        life = self._life

        def act() -> None:
            if self.alive and self._life == life:
                action()

        self.swarm.clock.later(delay_s, act)

    # ---- effects ---------------------------------------------------------------------------------

    def _perform(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Say():
                self._send(effect)
            case effects.RunOp():
                self._run(effect)
            case effects.WriteCommit():
                self._committed_at = max(self._committed_at, self.swarm.clock.now + self.device.seconds())
                self._end_later(self._committed_at - self.swarm.clock.now, lambda: self._commit(effect))
            case effects.ForgetEpoch():
                self.disk.bases.pop(effect.epoch, None)
            case effects.DenyFrame():
                self._deny(effect.name)
            case effects.LoseState():
                assert self.swarm.lose_rate, effect.reason
                self.kill()
                self.swarm.clock.later(1.0, lambda: None if self.alive else self.start(fresh=True))
            case _:
                self._end_later(self.swarm.links.delay(), lambda: self._fact_at_end_of(effect))

    def _end_later(self, delay_s: float, fact: Callable[[], facts.Fact | None]) -> None:
        """Give the core the fact about the end of an effect, after `delay_s`."""

        def end() -> None:
            if (found := fact()) is not None:
                self._take(found)
                self._listen()

        self._later(delay_s, end)

    def _fact_at_end_of(self, effect: effects.Effect) -> facts.Fact | None:
        """The fact with which an effect ends; None where the core expects none."""
        match effect:
            case effects.ReadTokens():
                return facts.TokensRead(effect.epoch, effect.step, effect.microbatch)
            case effects.FetchFrame(notice) if self.core.wants(effect):
                return self._fetched(notice.name)
            case effects.FindFrames():
                return self._find(effect)
            case effects.SendFrame(frame, to) if self.core.wants(effect):
                return facts.FrameStored(self._sent(frame, to))
            case effects.SendFrame(frame):
                return facts.FrameNotStored(frame.notice.name)
            case effects.ResendFrame(name, to) if self.core.wants(effect):
                return facts.FrameStored(self._sent(self.disk.frames.made[name], to))
            case effects.SendAgain(name) if self.core.wants(effect):
                self.swarm.stored.add(name)
                return facts.FrameStored(self.disk.frames.made[name].notice)
            case effects.ResendFrame(name) | effects.SendAgain(name):
                return facts.FrameNotStored(name)
            case effects.FetchBase():
                return self._store_base(effect.epoch, effect.digest)
            case effects.ApplyMerge():
                return self._store_base(effect.epoch + 1, None)
            case effects.LoadState():
                self._ran.clear()
                self._inputs.clear()
                self._joined = (effect.epoch, effect.step)
                return facts.StateLoaded(effect.epoch, effect.step)
            case effects.StoreDelta() | effects.MergePart() | effects.StoreBase() | effects.StoreEvidence():
                return facts.DutyEnded(effect, self._report(effect) if self.core.wants(effect) else None)
            case _:
                return None

    def _fetched(self, name: FrameName) -> facts.FrameArrived:
        """A frame has come from the store. The first one of its name stands, unless that was denied."""
        assert name in self.swarm.stored, "a frame was announced that is not in the store"
        frames = self.disk.frames
        frames.bad.discard(name)
        signed = frames.kept.setdefault(name, self.swarm.frames[name])
        fact = facts.FrameArrived(name)
        if self.core.reads(fact):
            self._inputs.setdefault((name.step, name.microbatch), {})[name.direction] = signed
        return fact

    def _sent(self, frame: OutgoingFrame, to: str) -> FrameNotice:
        """Push a frame to its receiver, or store it. The notice to say."""
        name = frame.notice.name
        pushed = self.swarm.rng.random() < self.swarm.push_rate
        if pushed and self.swarm.miners[to].take_pushed(self.swarm.frames[name]):
            return frame.notice.model_copy(update={"kept": FrameKept(receiver=to, signature="00" * 64)})
        self.swarm.stored.add(name)
        return frame.notice

    def _report(self, duty: effects.Duty) -> Report | None:
        report = report_of(duty, self.swarm.spec, self.core.stage, self.hotkey, self.disk.bases)
        if isinstance(report, Merged):
            self.disk.record(
                (report.epoch, report.stage, report.part, 0, OpKind.MERGE),
                stage=report.stage,
                version=0,
                output=merge_output(report.stored.digest, report.left_out),
                started=self.swarm.clock.now,
                ended=self.swarm.clock.now,
                device="virtual",
            )
        return report

    def _store_base(self, epoch: int, agreed: str | None) -> facts.BaseHeld:
        self.disk.bases[epoch] = agreed or digest("base", epoch, self.core.stage)
        return facts.BaseHeld(epoch, self.disk.bases[epoch])

    def _send(self, effect: effects.Say) -> None:
        if effect.receipts:
            self._announced = self.disk.count  # as in the miner, a merged part goes out with its receipt

        def post() -> None:
            request = ExchangeRequest(
                cursor=self._cursor,
                receipts=self.disk.batch(self._announced, lambda head: "00" * 64),
                frames=effect.frames,
                reports=effect.reports,
            )
            for _ in range(self.swarm.links.copies()):
                self.swarm.exchange(self.hotkey, request)
            self.poll()

        self._later(self.swarm.links.delay(), post)

    # ---- ops -------------------------------------------------------------------------------------

    def _run(self, effect: effects.RunOp) -> None:
        """An op ends, and then its result is on disk, in the order of ops."""
        seconds = self.device.seconds()

        def launched() -> facts.OpLaunched:
            now = self.swarm.clock.now
            self._recorded_at = max(self._recorded_at, now) + self.device.recording * seconds
            self._end_later(self._recorded_at - now, lambda: self._op_result(effect))
            return facts.OpLaunched(effect.op)

        self._end_later(seconds, launched)

    def _op_result(self, effect: effects.RunOp) -> facts.OpDone | facts.OpBad:
        op = effect.op
        if (bad := self._bad_inputs(op)) or self.device.gives_nan(op):
            return facts.OpBad(op, bad)
        arrived = self._inputs.get((op.step, op.microbatch), {})
        self.disk.record(
            op.key,
            **op_fields(self.swarm.spec, self.core.stage, op, arrived),
            started=self.swarm.clock.now,
            ended=self.swarm.clock.now,
            device="virtual",
        )
        if op.kind is OpKind.STEP:
            ran = tuple(self._ran.pop(op.step, ()))
            self.applied.append(Applied(op.epoch, op.step, op.counted, ran))
        elif op.kind in (OpKind.BACKWARD, OpKind.LOSS):
            self._ran.setdefault(op.step, []).append((op.microbatch, op.attempt))
        return facts.OpDone(op, self._frame(effect))

    def _bad_inputs(self, op: Op) -> tuple[Direction, ...]:
        """The inputs of the op that give NaN, as they were pushed."""
        arrived = self._inputs.get((op.step, op.microbatch), {})
        read = {OpKind.BACKWARD: tuple(Direction), OpKind.STEP: ()}.get(op.kind, (Direction.FORWARD,))
        signed = {direction: arrived.get(direction) for direction in read}
        return tuple(
            direction
            for direction, each in signed.items()
            if each is not None and FrameHeader.model_validate_json(each.header).name in self.disk.frames.bad
        )

    def _commit(self, effect: effects.WriteCommit) -> facts.Committed | None:
        """Commit to a version; no more in an epoch that the replica has left."""
        (epoch, joined), spec = self._joined, self.swarm.spec
        if effect.epoch != epoch:
            return None
        self.disk.record(
            (epoch, effect.version, 0, 0, OpKind.COMMIT),
            **commit_fields(spec, self.core.stage, epoch, effect.version, joined),
            started=self.swarm.clock.now,
            ended=self.swarm.clock.now,
            device="virtual",
        )
        return facts.Committed(epoch, effect.version)

    def _frame(self, effect: effects.RunOp) -> OutgoingFrame | None:
        if effect.receiver is None:
            return None
        op = effect.op
        name = FrameName.of(op.key, self.core.stage)
        made = self.disk.frames.made
        if name not in made:  # one that an earlier process made is sent as it is
            spec, size = self.swarm.spec, frame_size(self.swarm.spec, name, self.hotkey, effect.receiver)
            payload = digest(self.core.stage, op.key)
            header = make_header(spec, name, payload, self.hotkey, effect.receiver).canonical().decode()
            self.swarm.frames[name] = SignedHeader(header=header, signature="00" * 64)
            made[name] = OutgoingFrame(FrameNotice(name=name, digest=digest(name, "pushed"), size=size), b"")
        return made[name]
