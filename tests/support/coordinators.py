"""A coordinator that a test talks to entry by entry, with replicas that say what the test lets them say."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from iota.protocol.events import Event
from iota.protocol.frames import Direction, FrameName, FrameNotice, StoredObject
from iota.protocol.merges import LeftOut, merge_output
from iota.protocol.messages import (
    PROTOCOL_VERSION,
    Capabilities,
    Delta,
    JoinRequest,
    Merged,
    Ready,
    Report,
    Role,
)
from iota.protocol.receipts import OpKind, Receipt
from iota.protocol.records import EpochRecord
from iota.simulate.names import fake_hotkey
from iota.spec import RunSpec
from orchestrator.coordinator import (
    BaseMade,
    Coordinator,
    Exchanged,
    Finding,
    Joined,
    LookedAt,
    Lost,
    Returned,
    Tick,
    UnreadCopy,
)
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.merger_draws import draw_block
from orchestrator.coordinator.state import Limits, RunState

LIMITS = Limits(first_s=10.0, merge_first_s=10.0, merge_min_s=2.0, start_s=10.0)


@dataclass
class Driven:
    """A coordinator, its clock, and shorthands for entries."""

    coordinator: Coordinator
    now: float = 1000.0
    cursors: dict[str, int] = field(default_factory=dict)

    @classmethod
    def training(cls, spec: RunSpec) -> Driven:
        """All planned replicas have joined and hold the base: the first steps are planned."""
        driven = cls(Coordinator(spec, LIMITS))
        for number in range(spec.layout.stages * spec.layout.replicas):
            driven.join(number)
        driven.hold_base()
        return driven

    @property
    def state(self) -> RunState:
        return self.coordinator.state

    @property
    def merging(self) -> int:
        """The epoch whose merge is under way, or else the current one."""
        return self.state.epoch if self.state.merging is None else self.state.merging

    def hold_base(self) -> None:
        """All miners hold the base of epoch 0, which the orchestrator makes too."""
        for member in self.state.miners():
            self.say(member, reports=[Ready(epoch=0, digest=f"{member.stage:064x}")])
        self.make_bases()

    def make_bases(self, digest: str | None = None) -> int:
        """The orchestrator makes the bases that it is to make; returns their number."""
        bases = self.coordinator.disputed_bases()
        for base in bases:
            entry = BaseMade(
                at=self.now,
                epoch=base.epoch,
                stage=base.stage,
                digest=digest or f"{base.stage:064x}",
                parts=(StoredObject(key="base", digest="1" * 64, size=1),) if base.store else (),
            )
            self.coordinator.apply(entry)
        return len(bases)

    def join(self, number: int, role: Role = Role.MINER, **held: int) -> Member:
        """A node joins, without state but for the fields of the request that are given."""
        request = JoinRequest(
            role=role,
            versions=(PROTOCOL_VERSION,),
            capabilities=Capabilities(device="test", memory=1, flops=1.0),
            **held,
        )
        self.coordinator.apply(Joined(at=self.now, hotkey=fake_hotkey(number), request=request))
        return self.state.members[fake_hotkey(number)]

    def lose(self, member: Member) -> None:
        """The member has been silent for too long."""
        self.coordinator.apply(Lost(at=self.now, hotkey=member.hotkey))

    def come_back(self, member: Member) -> None:
        """A lost member sends a request again."""
        self.coordinator.apply(Returned(at=self.now, hotkey=member.hotkey))

    def wait(self, seconds: float, block: int | None = None, block_hash: str = "0" * 64) -> None:
        """Time passes, and the coordinator is told. The chain stands still if no block is named."""
        self.now += seconds
        number = self.state.head.block if block is None else block
        self.coordinator.apply(Tick(at=self.now, block=number, block_hash=block_hash))

    def draw_mergers(self, block_hash: str = "0" * 64) -> None:
        """The block comes by which the mergers of the current epoch are drawn."""
        self.wait(0.1, draw_block(self.state), block_hash)

    def merge(
        self,
        member: Member,
        stage: int,
        part: int = 0,
        digest: int = 7,
        left_out: Mapping[str, LeftOut] | None = None,
        *,
        signed: bool = True,
        reported: bool = True,
        read: bool = True,
    ) -> None:
        """A merger stores its copy of a part, and signs it in a receipt; `read`: what agrees is read."""
        size = self.state.part_bytes[stage][part]
        stored = StoredObject(key=f"merged/{member.hotkey}", digest=f"{digest:064x}", size=size)
        report = Merged(
            epoch=self.merging, stage=stage, part=part, stored=stored, left_out=dict(left_out or {})
        )
        output = merge_output(stored.digest, report.left_out)
        receipt = self.receipt(member, OpKind.MERGE, 0, part).model_copy(
            update={"stage": stage, "output": output, "epoch": self.merging}
        )
        self.say(member, receipts=[receipt] if signed else [], reports=[report] if reported else [])
        for copy in self.coordinator.unread_copies() if read else ():
            self.read(copy)

    def read(self, copy: UnreadCopy, found: Finding = Finding.SOUND) -> None:
        """The orchestrator has read a copy on which mergers agree."""
        self.coordinator.apply(copy.read(self.now, found))

    def give_all(self) -> None:
        """Every replica stores its pseudo-gradient."""
        self.give(*self.state.miners())

    def give(self, *members: Member) -> None:
        """These replicas store their pseudo-gradients."""
        for member in members:
            sizes = enumerate(self.state.part_bytes[member.stage])
            parts = (StoredObject(key=f"d/{member.hotkey}/{n}", digest="1" * 64, size=s) for n, s in sizes)
            self.say(member, reports=[Delta(epoch=self.merging, parts=tuple(parts))])

    def merge_all(self) -> None:
        """Every drawn merger merges its parts, rightly."""
        for stage, merge in enumerate(self.state.epochs[self.merging].merges):
            for number, part in enumerate(merge.parts):
                for hotkey in list(part.mergers):
                    if part.agreed is None and self.state.members[hotkey].live:
                        self.merge(self.state.members[hotkey], stage, number)

    def next_base(self) -> None:
        """All replicas hold the base of the next epoch."""
        following = self.merging + 1
        for member in self.state.miners():
            self.say(member, reports=[Ready(epoch=following, digest=f"{member.stage:064x}")])

    def seal(self) -> EpochRecord:
        """All replicas hold the next base, and a block comes: the record of the epoch that this seals."""
        number = self.merging
        self.next_base()
        self.wait(0.0, self.state.head.block + 1)
        return self.record(number)

    def record(self, number: int) -> EpochRecord:
        """The public record of a sealed epoch."""
        published = self.coordinator.published(number)
        assert published is not None
        return EpochRecord.model_validate_json(zlib.decompress(published.packed))

    def say(
        self,
        member: Member,
        *,
        receipts: Iterable[Receipt] = (),
        frames: Iterable[FrameNotice] = (),
        reports: Iterable[Report] = (),
        looked: Mapping[FrameName, Finding] | None = None,
    ) -> None:
        """One exchange of `member`; `looked` is what the server found of frames that it reports."""
        self.coordinator.apply(
            Exchanged(
                at=self.now,
                hotkey=member.hotkey,
                receipts=tuple(receipts),
                frames=tuple(frames),
                reports=tuple(reports),
                looked=tuple(LookedAt(name=name, found=found) for name, found in (looked or {}).items()),
            )
        )
        assert not self.state.incidents.internal, self.state.incidents.internal[0]

    def news(self, member: Member) -> list[Event]:
        """The member's events since the last call."""
        found = self.coordinator.events_after(member.hotkey, self.cursors.get(member.hotkey, 0))
        if found:
            self.cursors[member.hotkey] = found[-1][0]
        return [event for _, event in found]

    def receipt(self, member: Member, kind: OpKind, step: int, microbatch: int, attempt: int = 0) -> Receipt:
        """The next receipt of `member`, as its chain wants it."""
        return Receipt(
            seq=member.receipts + 1,
            epoch=self.state.epoch,
            step=step,
            microbatch=microbatch,
            attempt=attempt,
            stage=member.stage,
            kind=kind,
            version=step if kind is OpKind.COMMIT else 0,
            output="0" * 64,
            loss=2.0 if kind in (OpKind.LOSS, OpKind.EVAL) else None,
            started=self.now,
            ended=self.now,
            device="test",
            previous=member.head,
        )

    def run_microbatch(self, step: int, index: int) -> None:
        """Every replica on the microbatch's route does its part, and applies the steps that this closes."""
        self.run_ops(step, index)
        self.receipt_steps()

    def run_ops(self, step: int, index: int) -> None:
        """Every replica on the microbatch's route runs its ops."""
        last = self.state.stages - 1
        for stage in range(last):
            self.run_op(step, index, stage, OpKind.FORWARD)
        self.run_op(step, index, last, OpKind.LOSS)
        for stage in reversed(range(last)):
            self.run_op(step, index, stage, OpKind.BACKWARD)

    def run_heldout(self, index: int) -> None:
        """Every replica on a held-out microbatch's route runs its op."""
        last = self.state.stages - 1
        for stage in range(last):
            self.run_op(0, index, stage, OpKind.FORWARD)
        self.run_op(0, index, last, OpKind.EVAL)

    def receipt_steps(self) -> None:
        """Every replica has applied the closed steps, and committed to what they made."""
        epoch = self.state.current
        for hotkey, lives in epoch.lives.items():
            member = self.state.members[hotkey]
            for owed in range(lives[-1].next_step, epoch.closed_steps):
                self.say(member, receipts=[self.receipt(member, OpKind.STEP, owed, 0)])
            self.commit(member)

    def commit(self, member: Member) -> None:
        """The member commits to the versions that its STEPs have made."""
        life = self.state.current.lives[member.hotkey][-1]
        while life.next_commit is not None and life.next_commit <= life.next_step:
            self.say(member, receipts=[self.receipt(member, OpKind.COMMIT, life.next_commit, 0)])

    def run_op(self, step: int, index: int, stage: int, kind: OpKind) -> None:
        """The replica that has the microbatch at `stage` runs one op, and stores what it sends."""
        place = self.state.current.steps[step].microbatches[index].places[stage]
        member = self.state.members[place.miner]
        receipt = self.receipt(member, kind, step, index, place.attempt)
        forward = kind is OpKind.FORWARD
        sends = forward or (stage > 0 and kind is not OpKind.EVAL)
        direction = Direction.FORWARD if forward else Direction.BACKWARD
        frames = [frame(self.state.epoch, step, index, place.attempt, stage, direction)] if sends else []
        self.say(member, receipts=[receipt], frames=frames)


def frame(epoch: int, step: int, index: int, attempt: int, stage: int, direction: Direction) -> FrameNotice:
    """The notice of a stored frame."""
    name = FrameName(
        epoch=epoch, step=step, microbatch=index, attempt=attempt, stage=stage, direction=direction
    )
    return FrameNotice(name=name, digest="0" * 64, size=1)
