"""A run whose members do what they are asked to, entry by entry, and its costs: for bench_coordinator."""

from __future__ import annotations

import gc
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from iota.objects import part_sizes
from iota.protocol.events import BaseAssign, MergeAssign
from iota.protocol.frames import Direction, FrameName, FrameNotice, StoredObject
from iota.protocol.merges import merge_output
from iota.protocol.messages import (
    PROTOCOL_VERSION,
    AuditKind,
    BaseStored,
    Capabilities,
    Delta,
    JoinRequest,
    Merged,
    Outcome,
    Ready,
    Report,
    Reveal,
    Role,
    Verdict,
)
from iota.protocol.receipts import GENESIS, OpKind, Receipt
from iota.simulate.names import digest
from iota.spec import RunSpec
from orchestrator.coordinator import (
    BaseMade,
    Coordinator,
    Entry,
    Exchanged,
    Finding,
    Joined,
    Lost,
    Returned,
    Tick,
)
from orchestrator.coordinator.merger_draws import draw_block

try:
    from orchestrator.garbage import settle
except ImportError:  # a baseline that has none
    settle = gc.freeze

LOOK_EVERY: Final = 64
"""Ops between two looks for the next deadline, which the server takes at most 20 times a second."""
VALIDATORS: Final = 8
HASH: Final = "1" * 64
LOST: Final = 8
"""Members whose loss is measured."""


@dataclass
class Costs:
    """What one run measured."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """kind of entry -> CPU seconds of each."""
    sent: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    """kind of event -> bytes in one step, to all members."""
    merge_s: float = 0.0
    """CPU seconds of all entries from the last step of an epoch to the first plan of the next."""
    pauses: list[float] = field(default_factory=list)
    """Seconds of each garbage collection."""


class Run:
    """A run whose members do what they are asked to, entry by entry."""

    def __init__(self, stages: int, replicas: int, microbatches: int, steps: int = 3) -> None:
        self.spec = RunSpec.model_validate(
            {
                "model": {
                    "vocab_size": 16, "hidden_size": 8, "layers": stages, "heads": 2, "kv_heads": 1,
                    "ffn_size": 8, "rope_theta": 1e4,
                },
                "layout": {"cuts": [1] * stages, "replicas": replicas},
                "boundary": {"codec": "identity"},
                "data": {"manifest": "0" * 64, "sequence_length": 4, "sequences": 1},
                "schedule": {
                    "epochs": 2, "steps": steps, "microbatches": microbatches, "pipeline": "delayed",
                    "credit": 2,
                },
                "optimizer": {"lr": 0.1},
                "outer": {},
            }
        )  # fmt: skip
        self.stages, self.replicas, self.microbatches = stages, replicas, microbatches
        self.coordinator = Coordinator(self.spec)
        self.costs = Costs()
        self.now = 1000.0
        hotkeys = [_hotkey(n) for n in range(stages * replicas + VALIDATORS)]
        self.miners, self.validators = hotkeys[:-VALIDATORS], hotkeys[-VALIDATORS:]
        self.cursors: dict[str, int] = dict.fromkeys([*self.miners, *self.validators], 0)
        self.chains: dict[str, tuple[int, str]] = dict.fromkeys(self.miners, (0, GENESIS))
        """(number of receipts, digest of the last)"""

    def apply(self, kind: str, entry: Entry) -> float:
        """Apply one entry and add its CPU time to its kind."""
        spent = self._timed(kind, lambda: self.coordinator.apply(entry))
        faults = self.coordinator.state.incidents.internal
        if faults:
            raise RuntimeError(faults[0])
        return spent

    def _timed(self, kind: str, call: Callable[[], object]) -> float:
        before = time.thread_time()
        call()
        spent = time.thread_time() - before
        self.costs.seconds[kind].append(spent)
        return spent

    def report(self, kind: str, hotkey: str, report: Report) -> float:
        """Apply an exchange with one report."""
        return self.apply(kind, Exchanged(at=self._later(), hotkey=hotkey, reports=(report,)))

    def join_all(self) -> None:
        """All members join, and hold the base of epoch 0; the first steps are planned."""
        for hotkey in (*self.miners, *self.validators):
            request = JoinRequest(
                role=Role.MINER if hotkey in self.chains else Role.VALIDATOR,
                versions=(PROTOCOL_VERSION,),
                capabilities=Capabilities(device="bench", memory=1, flops=1.0),
            )
            self.apply("join", Joined(at=self._later(), hotkey=hotkey, request=request))
        self.apply("tick", Tick(at=self._later(), block=1, block_hash=HASH))
        for hotkey in self.miners:
            self.report("ready", hotkey, Ready(epoch=0, digest=digest("base", 0, self._stage(hotkey))))
        for base in self.coordinator.disputed_bases():
            true = digest("base", 0, base.stage)
            self.apply("made", BaseMade(at=self._later(), epoch=0, stage=base.stage, digest=true))
        self._store_bases()

    def step(self, epoch: int, step: int) -> None:
        """All ops of one step. The entry that closes it, and plans another, is a kind of its own."""
        last = step == self.spec.schedule.steps - 1
        ops = self.microbatches * (2 * self.stages - 1)
        for number, entry in enumerate(self._ops(epoch, step), 1):
            kind = "op" if number < ops else "close" if last else "close and plan"
            spent = self.apply(kind, entry)
            if number % LOOK_EVERY == 0:
                self._timed("deadline", self.coordinator.next_deadline)
        self.costs.merge_s += spent if last else 0.0
        committed = [v for v in (step, step + 1) if self.spec.is_committed(v) and v in (0, step + 1)]
        for hotkey in self.miners:
            receipts = [self._receipt(hotkey, OpKind.STEP, epoch, step)]
            receipts += [self._receipt(hotkey, OpKind.COMMIT, epoch, version) for version in committed]
            self.apply("step", Exchanged(at=receipts[-1].ended, hotkey=hotkey, receipts=tuple(receipts)))

    def merge(self, epoch: int) -> None:
        """From the pseudo-gradients to the next epoch's first plan."""
        kinds = ("delta", "merged", "ready", "base")
        before = sum(sum(self.costs.seconds[kind]) for kind in kinds)
        for hotkey in self.miners:
            sizes = part_sizes(self.spec, self._stage(hotkey))
            parts = (StoredObject(key=f"d/{n}", digest=HASH, size=4 * s) for n, s in enumerate(sizes))
            self.report("delta", hotkey, Delta(epoch=epoch, parts=tuple(parts)))
        self.apply("tick", Tick(at=self._later(), block=draw_block(self.coordinator.state), block_hash=HASH))
        for hotkey, assign in self._asked(MergeAssign):
            stored = StoredObject(key="m", digest=HASH, size=assign.contributions[0].stored.size)
            done = Merged(epoch=epoch, stage=assign.stage, part=assign.part, stored=stored)
            self.apply("merged", self._merged(hotkey, done))
            for copy in self.coordinator.unread_copies():
                self.apply("merged", copy.read(self._later(), Finding.SOUND))
        for hotkey in self.miners:
            made = digest("base", epoch + 1, self._stage(hotkey))
            self.report("ready", hotkey, Ready(epoch=epoch + 1, digest=made))
        self._store_bases()
        self.costs.merge_s += sum(sum(self.costs.seconds[kind]) for kind in kinds) - before

    def audit(self, epoch: int) -> None:
        """A block seals the epoch; each validator files some verdicts, and more blocks come."""
        self.apply("seal", Tick(at=self._later(), block=2, block_hash=HASH))
        for validator in self.validators:
            self.report("reveal", validator, Reveal(epoch=epoch, link=HASH))
            for seq, miner in enumerate(self.miners[: 4 * VALIDATORS], 1):
                verdict = Verdict(
                    epoch=epoch, miner=miner, audit=AuditKind.OP, outcome=Outcome.PASS, seq=seq,
                    profile="exact",
                )  # fmt: skip
                self.report("verdict", validator, verdict)
        for block in range(3, 23):
            self.apply("tick", Tick(at=self._later(), block=block, block_hash=HASH))

    def lose_some(self) -> None:
        """Some members are lost with their work, and come back."""
        lost = self.miners[:: max(1, len(self.miners) // LOST)][:LOST]
        for hotkey in lost:
            self.apply("lost", Lost(at=self._later(), hotkey=hotkey))
            self.apply("returned", Returned(at=self._later(), hotkey=hotkey))

    def read_events(self, *, count: bool = False) -> None:
        """Every member fetches its new events; `count` their bytes by kind."""
        for hotkey in self.cursors:
            for seq, event in self.coordinator.events_after(hotkey, self.cursors[hotkey]):
                self.cursors[hotkey] = seq
                if count:
                    self.costs.sent[event.kind.value] += len(event.model_dump_json())
        if hasattr(self.coordinator, "take_plans"):  # a baseline may have none
            self.coordinator.take_plans()

    def whole(self) -> Costs:
        """The run up to the first step of epoch 1; returns what it measured."""
        pauses, begun = self.costs.pauses, [0.0]

        def watch(phase: str, info: dict[str, int]) -> None:
            if phase == "start":
                begun[0] = time.thread_time()
            else:
                pauses.append(time.thread_time() - begun[0])

        thresholds = gc.get_threshold()
        gc.callbacks.append(watch)
        try:
            settle()  # as `iota-orchestrator` does once it serves
            pauses.clear()
            self.join_all()
            self.read_events()
            for step in range(self.spec.schedule.steps):
                self.step(0, step)
                self.read_events(count=step == 0)
                gc.collect()  # `iota-orchestrator` does at any of these moments, and never in between
            self.merge(0)
            gc.collect()
            self.audit(0)
            self.lose_some()
        finally:
            gc.callbacks.remove(watch)
            gc.unfreeze()
            gc.set_threshold(*thresholds)
        return self.costs

    # ---- entries ---------------------------------------------------------------------------------

    def _merged(self, hotkey: str, done: Merged) -> Exchanged:
        """The exchange of a merger: its receipt and its report."""
        count, head = self.chains[hotkey]
        at = self._later()
        receipt = Receipt(
            seq=count + 1, epoch=done.epoch, step=0, microbatch=done.part, stage=done.stage, version=0,
            kind=OpKind.MERGE, output=merge_output(done.stored.digest, done.left_out), started=at, ended=at,
            device="bench", previous=head,
        )  # fmt: skip
        self.chains[hotkey] = (count + 1, receipt.content_digest())
        return Exchanged(at=at, hotkey=hotkey, receipts=(receipt,), reports=(done,))

    def _later(self) -> float:
        self.now += 1e-4
        return self.now

    def _stage(self, hotkey: str) -> int:
        return self.coordinator.members[hotkey].stage

    def _asked(self, kind: type[Any]) -> list[tuple[str, Any]]:
        """(hotkey, event) of the new events of one kind."""
        found = []
        for hotkey in self.miners:
            for seq, event in self.coordinator.events_after(hotkey, self.cursors[hotkey]):
                self.cursors[hotkey] = seq
                if isinstance(event, kind):
                    found.append((hotkey, event))
        return found

    def _store_bases(self) -> None:
        for hotkey, asked in self._asked(BaseAssign):
            made = digest("base", asked.epoch, self._stage(hotkey))
            self.report("base", hotkey, BaseStored(epoch=asked.epoch, digest=made, parts=()))

    def _ops(self, epoch: int, step: int) -> Iterator[Entry]:
        last = self.stages - 1
        for index in range(self.microbatches):
            route = [self.coordinator.neighbour(epoch, step, index, s) for s in range(self.stages)]
            kinds = [(s, OpKind.FORWARD) for s in range(last)] + [(last, OpKind.LOSS)]
            for stage, kind in (*kinds, *((s, OpKind.BACKWARD) for s in reversed(range(last)))):
                miner = route[stage]
                assert miner is not None
                yield self._op(miner, kind, epoch, step, index, stage)

    def _op(self, miner: str, kind: OpKind, epoch: int, step: int, index: int, stage: int) -> Exchanged:
        receipt = self._receipt(miner, kind, epoch, step, index)
        at = receipt.ended
        forward = kind is OpKind.FORWARD
        if not (forward or stage > 0):
            return Exchanged(at=at, hotkey=miner, receipts=(receipt,))
        name = FrameName(
            epoch=epoch, step=step, microbatch=index, attempt=0, stage=stage,
            direction=Direction.FORWARD if forward else Direction.BACKWARD,
        )  # fmt: skip
        made = FrameNotice(name=name, digest=digest(str(name)), size=1000)
        return Exchanged(at=at, hotkey=miner, receipts=(receipt,), frames=(made,))

    def _receipt(self, miner: str, kind: OpKind, epoch: int, step: int, index: int = 0) -> Receipt:
        """The next receipt of a miner's chain."""
        (count, head), at = self.chains[miner], self._later()
        receipt = Receipt(
            seq=count + 1, epoch=epoch, step=step, microbatch=index, stage=self._stage(miner), kind=kind,
            version=step if kind is OpKind.COMMIT else 0, output=HASH, tokens=4, started=at, ended=at,
            loss=2.0 if kind is OpKind.LOSS else None, device="bench", previous=head,
        )  # fmt: skip
        self.chains[miner] = (count + 1, receipt.content_digest())
        return receipt


def _hotkey(number: int) -> str:
    """A text in the form of a hotkey's address."""
    return "5" + digest("hotkey", number)[:47].replace("0", "z")
