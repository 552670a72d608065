"""Whole epochs by real engines in one process, with the receipts, frames and records that they leave.

A miner can be made to cheat; everybody else stays honest and works on what the cheat sends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from blake3 import blake3
from torch import Tensor

from iota.codec.wire_dtype import payload_tensor
from iota.compute import Microbatch, Output
from iota.compute.determinism import device_class
from iota.compute.state import StageState
from iota.compute.tokens import Tokens
from iota.identity.signatures import signing_bytes
from iota.objects import BaseKey, DeltaKey, FrameKey, MergedKey, PlanKey
from iota.outer.base import base_parts, base_roots, initial_base, named_weights
from iota.outer.base_values import next_base
from iota.outer.merge import merge_part
from iota.outer.merged_part import read_merged_stage
from iota.outer.nesterov import OuterState
from iota.outer.partition import Vector
from iota.protocol.events import Contribution, EpochClose, MergeAssign, MergeReady
from iota.protocol.frames import FrameName, StoredObject
from iota.protocol.merges import LeftOut, merge_output
from iota.protocol.merkle import merkle_root
from iota.protocol.plans import WholePlan
from iota.protocol.receipts import OpKind, SignedHeader
from iota.protocol.records import (
    BaseRecord,
    CountedList,
    DeltaRecord,
    EpochRecord,
    HeldoutRecord,
    LeftOutRecord,
    LifeRecord,
    MinerRecord,
    PlanRecord,
)
from iota.protocol.seals import member_parts
from iota.spec import RunSpec
from iota.wire.frame import DOMAIN, encode_frame, make_header
from tests.support.audited_miners import Honest, Miner
from tests.support.plans import whole_plan
from tests.support.small_runs import sample
from tests.support.world_sources import WorldSources

THREADS = torch.get_num_threads()
"""Threads of the worlds' miners and of their replays: other tests of the process may set another count."""
DEVICE = device_class("cpu", THREADS)


@dataclass
class Merges:
    """An epoch's merges, as its record has them."""

    assigns: list[MergeAssign] = field(default_factory=list)
    ready: list[MergeReady] = field(default_factory=list)
    left_out: dict[tuple[int, LeftOut], list[int]] = field(default_factory=dict)


class World(WorldSources):
    """A run with one replica a stage: its store, its records, and the validator's sources."""

    def __init__(
        self,
        spec: RunSpec,
        ways: dict[int, Honest] | None = None,
        device: str = DEVICE,
        batches: Callable[[int, int, int], Tokens] | None = None,
    ) -> None:
        self.spec, self.run = spec, spec.id
        ways = ways or {}
        self.miners = [
            Miner(spec, stage, ways.get(stage, Honest()), device) for stage in range(spec.layout.stages)
        ]
        self.outer = [initial_base(spec, stage) for stage in range(spec.layout.stages)]
        self.store: dict[str, bytes] = {}
        self.kept: dict[str, dict[FrameName, bytes]] = {miner.hotkey: {} for miner in self.miners}
        """miner -> the frames that it sent and received."""
        self.records: dict[int, EpochRecord] = {}
        self.made: dict[int, Merges] = {}
        self.blocks: dict[int, int] = {}
        """epoch -> the block that its seal names; 1 for others."""
        self.made_bases: dict[tuple[int, int], OuterState] = {}
        """(number, stage) -> a base."""
        self.rests: dict[tuple[int, int], str] = {}
        """Likewise: root of what else is in it (`BaseRoots.rest`)."""
        self.bases: list[BaseRecord] = []
        self.plans: dict[int, list[WholePlan]] = {}
        """By epoch."""
        self.lives: dict[tuple[int, str], list[tuple[int, int]]] = {}
        """(epoch, miner) -> (step of the join, first receipt) of each life."""
        self.held: dict[tuple[int, str], bytes] = {}
        """(epoch, miner) -> the error feedback that its last life began with."""
        self._batches = batches or sample(spec)
        for stage, miner in enumerate(self.miners):
            miner.engine.load(StageState.initial(spec, stage), version=0)
            self._store_base(0, stage)

    # ---- training ------------------------------------------------------------------------------

    def train(self, epoch: int = 0, rejoin: tuple[int, int] | None = None) -> EpochRecord:
        """One epoch and its merge; the record as the coordinator would give it.

        `rejoin`: the miner of a stage loses its disk, and takes the base anew when a step begins.
        """
        torch.set_num_threads(THREADS)
        spec = self.spec
        plans = []
        for miner in self.miners:
            self.lives[epoch, miner.hotkey] = [(0, len(miner.receipts) + 1)]
            miner.joined = 0
            self._begin(epoch, miner)
            self.held[epoch, miner.hotkey] = miner.hold(miner.left)
            miner.snapshots.clear()
            miner.frozen.clear()
            miner.keep_snapshot(0)
            miner.commit(epoch, 0)
        for step in range(spec.schedule.steps):
            if rejoin is not None and rejoin[1] == step:
                self._rejoin(epoch, *rejoin)
            for index in range(spec.planned(step)):
                run = self._heldout if spec.is_heldout(index) else self._microbatch
                run(Microbatch(epoch, step, index))
            self._steps(epoch, step)
            plans.append(self._plan(epoch, step))
        deltas = self._deltas(epoch)
        made = self.made[epoch] = Merges()
        for delta in deltas:
            self._merge(epoch, delta, made)
        self.records[epoch] = self.record_of(epoch, tuple(plans), deltas)
        return self.records[epoch]

    def _begin(self, epoch: int, miner: Miner) -> None:
        """The miner begins an epoch, with the base that it has loaded."""
        self._set_start(epoch, miner, self.anchor(epoch, miner.stage).weights)

    def _set_start(self, epoch: int, miner: Miner, start: Vector) -> None:
        miner.rest = self.rests[self.spec.anchor(epoch), miner.stage]
        miner.start = named_weights(self.spec, miner.stage, start)

    def anchor(self, epoch: int, stage: int) -> OuterState:
        """The base from which replicas begin an epoch."""
        return self.made_bases[self.spec.anchor(epoch), stage]

    def _rejoin(self, epoch: int, stage: int, step: int) -> None:
        miner = self.miners[stage]
        miner.joined = step
        self.held[epoch, miner.hotkey] = miner.hold([])
        self.lives[epoch, miner.hotkey].append((step, len(miner.receipts) + 1))
        self._set_start(epoch, miner, self.anchor(epoch, stage).weights)
        miner.engine.load(StageState(miner.start), version=step)
        miner.snapshots.clear()
        miner.frozen.clear()
        miner.keep_snapshot(step)
        miner.commit(epoch, step)

    def _microbatch(self, mb: Microbatch) -> None:
        tokens, headers = self._batches(mb.epoch, mb.step, mb.index), {}
        payload: Tensor | None = None
        header: SignedHeader | None = None
        for miner in self.miners[:-1]:
            headers[miner.stage] = header
            made = miner.engine.forward(mb, miner.version(mb.step), payload, tokens).read().result()
            payload, header = self._send(miner, mb, OpKind.FORWARD, made, [header])
        gradient, back = payload, header
        for miner in reversed(self.miners):
            assert gradient is not None
            if miner.stage == self.spec.last_stage:
                made = miner.engine.loss(mb, miner.version(mb.step), payload, tokens).read().result()
                gradient, back = self._send(miner, mb, OpKind.LOSS, made, [header])
            else:
                made = miner.engine.backward(mb, miner.version(mb.step), gradient).read().result()
                inputs = [headers[miner.stage], back]
                gradient, back = self._send(miner, mb, OpKind.BACKWARD, made, inputs)

    def _heldout(self, mb: Microbatch) -> None:
        tokens = self._batches(mb.epoch, mb.step, mb.index)
        payload: Tensor | None = None
        header: SignedHeader | None = None
        for miner in self.miners:
            kind = OpKind.EVAL if miner.stage == self.spec.last_stage else OpKind.FORWARD
            made = miner.engine.evaluate(mb, miner.version(mb.step), payload, tokens).read().result()
            payload, header = self._send(miner, mb, kind, made, [header])

    def _send(
        self, miner: Miner, mb: Microbatch, kind: OpKind, made: Output, inputs: Iterable[SignedHeader | None]
    ) -> tuple[Tensor | None, SignedHeader | None]:
        claimed = miner.way.output(miner, mb, kind, made)
        miner.write(
            epoch=mb.epoch,
            step=mb.step,
            microbatch=mb.index,
            attempt=mb.attempt,
            kind=kind,
            version=miner.version(mb.step),
            inputs=tuple(i for i in inputs if i is not None),
            output=claimed.digest,
            loss=claimed.loss,
            tokens=claimed.tokens,
        )
        if claimed.payload is None:
            return None, None
        name = FrameName.of((mb.epoch, mb.step, mb.index, mb.attempt, kind), miner.stage)
        towards = name.direction.destination(miner.stage, len(self.miners))
        assert towards is not None
        receiver = self.miners[towards].hotkey
        header = make_header(self.spec, name, claimed.digest, miner.hotkey, receiver)
        frame = encode_frame(header, claimed.payload, miner.key.sign)
        self.store[str(FrameKey(self.run, name))] = frame
        for keeper in (miner.hotkey, receiver):
            self.kept[keeper][name] = frame
        signature = miner.key.sign(signing_bytes(DOMAIN, header.canonical())).hex()
        return payload_tensor(claimed.payload), SignedHeader(
            header=header.canonical().decode(), signature=signature
        )

    def _steps(self, epoch: int, step: int) -> None:
        count, rate = self.spec.schedule.microbatches, self.spec.learning_rate(epoch, step)
        for miner in self.miners:
            update = miner.way.step(miner, step, count, rate, epoch)
            version = miner.version(step)
            fields = {"epoch": epoch, "step": step, "kind": OpKind.STEP, "version": version}
            miner.write(**fields, output=update.counted, update=update)
            miner.keep_snapshot(step + 1)
            if step + 1 == self.spec.schedule.steps:
                miner.encode(miner.start)
            if self.spec.is_committed(step + 1, miner.joined):
                miner.commit(epoch, step + 1)

    # ---- records -------------------------------------------------------------------------------

    def _plan(self, epoch: int, step: int) -> PlanRecord:
        plan = whole_plan(
            [m.hotkey for m in self.miners],
            self.spec.planned(step),
            epoch=epoch,
            step=step,
            learning_rate=self.spec.learning_rate(epoch, step),
        )
        self.plans.setdefault(epoch, []).append(plan)
        return self.store_plan(step, plan)

    def store_plan(self, step: int, plan: WholePlan) -> PlanRecord:
        """Store a plan as that of `step` of its epoch; the record that names it."""
        root = plan.root()
        self.store[str(PlanKey(self.run, plan.epoch, step, root))] = plan.model_dump_json().encode()
        return PlanRecord(step=step, root=root)

    def _deltas(self, epoch: int) -> tuple[DeltaRecord, ...]:
        records = []
        for stage, miner in enumerate(self.miners):
            parts = [
                self._put(str(DeltaKey(self.run, epoch, stage, miner.hotkey, n)), data)
                for n, data in enumerate(miner.encoded)
            ]
            records.append(DeltaRecord(miner=miner.hotkey, stage=stage, tokens=1, parts=tuple(parts)))
            last = next(r for r in reversed(self.of_epoch(epoch, miner)) if r.commitment is not None)
            miner.ended[epoch] = last.commitment
        return tuple(records)

    def _put(self, key: str, data: bytes) -> StoredObject:
        self.store[key] = data
        return StoredObject(key=key, digest=blake3(data).hexdigest(), size=len(data))

    def _merge(self, epoch: int, delta: DeltaRecord, made: Merges) -> None:
        """The merge of a stage by the miners of the two next ones, and the base that it gives."""
        stage, mergers, merged = delta.stage, [], []
        for number, stored in enumerate(delta.parts):
            joined, _ = self.lives[epoch, delta.miner][-1]
            given = Contribution(hotkey=delta.miner, tokens=delta.tokens, joined=joined, stored=stored)
            assign = MergeAssign(epoch=epoch, stage=stage, part=number, contributions=(given,))
            made.assigns.append(assign)
            found = merge_part(self.spec, assign, lambda c: self.store.get(c.stored.key))
            mergers = [self.miners[(stage + ahead) % len(self.miners)] for ahead in (1, 2)]
            for merger in mergers:
                said = merger.way.merged(stage, found)
                key = MergedKey(self.run, epoch, stage, number, merger.hotkey)
                own = self._put(str(key), said.data)
                output = merge_output(own.digest, said.left_out)
                merger.write(
                    epoch=epoch, step=0, microbatch=number, stage=stage, kind=OpKind.MERGE, version=0,
                    output=output,
                )  # fmt: skip
            merged.append(own)
            for why in said.left_out.values():
                made.left_out.setdefault((stage, why), []).append(number)
        made.ready.append(MergeReady(epoch=epoch, stage=stage, parts=tuple(merged)))
        vector = read_merged_stage(self.spec, stage, [self.store[part.key] for part in merged])
        self.outer[stage] = next_base(self.spec, epoch, self.outer[stage], vector)
        self._store_base(epoch + 1, stage)
        self._take_base(stage)

    def _take_base(self, stage: int) -> None:
        self.miners[stage].engine.rebase(named_weights(self.spec, stage, self.outer[stage].weights))

    def _store_base(self, epoch: int, stage: int) -> None:
        outer = self.miners[stage].way.next_base(epoch, self.outer[stage])
        made = enumerate(base_parts(self.spec, outer))
        parts = [self._put(str(BaseKey(self.run, epoch, stage, n)), data) for n, data in made]
        roots = base_roots(self.spec, outer)
        self.made_bases[epoch, stage] = self.outer[stage]
        self.rests[epoch, stage] = roots.rest
        record = BaseRecord(
            epoch=epoch,
            stage=stage,
            digest=roots.digest,
            parts=tuple(parts),
            makers=(self.miners[stage].hotkey,),
        )
        self.bases.append(record)

    def record_of(
        self, epoch: int, plans: tuple[PlanRecord, ...], deltas: tuple[DeltaRecord, ...]
    ) -> EpochRecord:
        ordered = sorted(self.miners, key=lambda m: m.hotkey)
        chains = [[r.content_digest() for r in self.of_epoch(epoch, m)] for m in ordered]
        roots = [merkle_root(chain) for chain in chains]
        everything = tuple((i, 0) for i in range(self.spec.schedule.microbatches))
        return EpochRecord(
            epoch=epoch,
            root=merkle_root(roots),
            receipts=sum(map(len, chains)),
            miners=tuple(
                MinerRecord(
                    hotkey=m.hotkey,
                    owner=m.hotkey,
                    certificate=None,
                    stage=m.stage,
                    **m.carried(epoch),
                    lives=self.lives_of(epoch, m),
                    first_receipt=self.lives[epoch, m.hotkey][0][1],
                    last_receipt=self.lives[epoch, m.hotkey][0][1] + len(self.of_epoch(epoch, m)) - 1,
                    receipts=root,
                    withdrawn=0,
                )
                for m, root in zip(ordered, roots, strict=True)
            ),
            plans=plans,
            reroutes=(),
            counted=tuple(
                CountedList(step=plan.step, miner=m.hotkey, counted=everything)
                for plan in plans
                for m in ordered
            ),
            heldout=tuple(
                HeldoutRecord(microbatch=index, attempts=(0,) * len(self.miners))
                for index in range(self.spec.schedule.microbatches, self.spec.planned(0))
            ),
            bases=tuple(
                base for base in self.bases if base.epoch in {self.spec.anchor(epoch), epoch, epoch + 1}
            ),
            deltas=deltas,
            merge_assigns=tuple(self.made[epoch].assigns),
            merges=tuple(self.made[epoch].ready),
            left_out=tuple(
                LeftOutRecord(miner=self.miners[stage].hotkey, stage=stage, why=why, parts=tuple(parts))
                for (stage, why), parts in self.made[epoch].left_out.items()
            ),
        )

    def lives_of(self, epoch: int, miner: Miner) -> tuple[LifeRecord, ...]:
        """The lives of a miner, as the record has them."""
        lives = self.lives[epoch, miner.hotkey]
        return tuple(LifeRecord(joined=joined, first_receipt=first) for joined, first in lives)

    # ---- what the validator reads from ---------------------------------------------------------

    def seal_of(self, epoch: int) -> EpochClose:
        """The seal over the record as it is now."""
        record = self.records[epoch]
        return EpochClose(
            epoch=epoch,
            root=record.root,
            receipts=record.receipts,
            block=self.blocks.get(epoch, 1),
            members=merkle_root([part.content_digest() for part in member_parts(record)]),
            record=blake3(record.model_dump_json().encode()).hexdigest(),
        )
