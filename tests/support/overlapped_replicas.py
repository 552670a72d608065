"""Replicas of a run with overlap, in one process: a miner's own disks, trainers and bases, driven by hand.

What an orchestrator would tell them a test calls: epochs begin, steps, merges. Payloads go from engine to
engine.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from blake3 import blake3
from torch import Tensor

from iota.client.run_objects import RunObjects
from iota.compute import Microbatch
from iota.compute.engine import Engine
from iota.compute.state import StageState
from iota.compute.tokens import Tokens
from iota.identity.keys import Hotkey
from iota.objects import DeltaKey, MergedKey, part_count
from iota.outer.base_values import BaseRoots
from iota.outer.merge import merge_part
from iota.outer.nesterov import OuterState
from iota.protocol.events import Contribution, MergeAssign
from iota.protocol.frames import StoredObject
from iota.protocol.receipts import OpKind, Receipt
from iota.spec import RunSpec
from iota.store import ObjectClient
from miner.activity import Activity
from miner.core.effects import ApplyMerge, FetchBase, LoadState, RunOp, WriteCommit
from miner.core.schedule import Op
from miner.device import DeviceThread
from miner.disk import MinerDisk
from miner.late_bases import LateBases
from miner.ops import OpRunner
from miner.receipt_log import ReceiptLog
from miner.trainer import Trainer
from tests.support.store_servers import StoreUrls, embedded

Batches = Callable[[int, int, int], Tokens]

HOTKEYS = sorted((Hotkey.from_seed(bytes([n]) * 32) for n in range(16)), key=lambda key: key.ss58)
"""In the order in which merges add."""


class LateReplica:
    """One replica of one stage, on its disk; `close` ends its process."""

    def __init__(self, root: Path, spec: RunSpec, stage: int, hotkey: Hotkey, objects: RunObjects) -> None:
        self.spec, self.stage, self.hotkey = spec, stage, hotkey
        self.disk = MinerDisk(root)
        self.log = ReceiptLog(self.disk.receipts, spec.id, hotkey)
        self.device = DeviceThread()
        self.runner = OpRunner(
            spec, stage, hotkey, Engine(spec, stage), self.log, self.disk, "cpu", snapshot_bytes=None
        )
        samples: Any = None  # nothing is read
        self.trainer = Trainer(spec, self.runner, samples, self.device, Activity())
        self.bases = LateBases(spec, self.runner, objects)

    async def begin(self, epoch: int, step: int = 0, *, carries: bool) -> None:
        """Begin an epoch at a step, and commit to what it begins with."""
        await self.trainer.load(LoadState(epoch, step, carries))
        await self.trainer.commit(WriteCommit(epoch, step))

    async def step(self, epoch: int, step: int) -> None:
        """The STEP of a step whose backwards have run, and the COMMIT that may follow."""
        engine = self.runner.engine
        op = Op(
            OpKind.STEP,
            epoch,
            step,
            self.spec.weight_version(step),
            counted=tuple((mb.index, mb.attempt) for mb in engine.summed(step)),
            learning_rate=self.spec.learning_rate(epoch, step),
        )
        await self.trainer.run(RunOp(op, None), lambda _: None)
        if self.spec.is_committed(step + 1, 0):
            await self.trainer.commit(WriteCommit(epoch, step + 1))

    def contribution(self, epoch: int) -> list[bytes]:
        """The encoded pseudo-gradient of an epoch, part by part, as it lies on the disk."""
        return [file.read_bytes() for file in self.disk.delta_parts(epoch)]

    def base(self, number: int) -> tuple[OuterState, BaseRoots]:
        """A base on the disk."""
        return self.disk.load_base(self.spec, self.stage, number)

    def state(self) -> StageState:
        """What the engine holds."""
        return self.runner.engine.state()

    def receipts(self) -> tuple[Receipt, ...]:
        """All receipts of the log's file."""
        return self.log.since(0)

    def close(self) -> None:
        """End the process."""
        self.runner.close()
        self.log.close()
        self.disk.__exit__()
        self.device.close()


class OverlappedSwarm:
    """Replicas of each stage of a run; those of one number are a pipeline with microbatches of its own."""

    def __init__(self, root: Path, spec: RunSpec, batches: list[Batches], objects: RunObjects) -> None:
        self._root, self._batches, self._objects = root, batches, objects
        self.spec, self._stages = spec, range(spec.layout.stages)
        self.pipelines = [[self._replica(r, stage) for stage in self._stages] for r in range(len(batches))]

    def _replica(self, number: int, stage: int) -> LateReplica:
        root = self._root / f"{number}-{stage}"
        key = HOTKEYS[number]  # one key may serve here for a whole pipeline
        return LateReplica(root, self.spec, stage, key, self._objects)

    def another(self, root: Path) -> LateReplica:
        """A replica of stage 0 with the first key, on a disk of its own. The caller closes it."""
        return LateReplica(root, self.spec, 0, HOTKEYS[0], self._objects)

    def all(self) -> list[LateReplica]:
        """Every replica."""
        return [replica for pipeline in self.pipelines for replica in pipeline]

    async def start(self) -> None:
        """Every replica makes base 0 from the seed."""
        for replica in self.all():
            await replica.bases.fetch(FetchBase(0, None, ()), {})

    async def begin(self, epoch: int, anchored: Collection[int] = (), only: int | None = None) -> None:
        """Begin an epoch, in all pipelines or in one: those of `anchored` with the anchor, the others with
        their own starts."""
        for number in range(len(self.pipelines)) if only is None else [only]:
            for replica in self.pipelines[number]:
                await replica.begin(epoch, carries=number not in anchored)

    async def train(self, epoch: int, steps: Iterable[int] | None = None, only: int | None = None) -> None:
        """Some steps of an epoch (None: all of them), in all pipelines or in one."""
        chosen = range(len(self.pipelines)) if only is None else [only]
        for step in range(self.spec.schedule.steps) if steps is None else steps:
            for number in chosen:
                for index in range(self.spec.schedule.microbatches):
                    self._microbatch(number, Microbatch(epoch, step, index))
                for replica in self.pipelines[number]:
                    await replica.step(epoch, step)

    def _microbatch(self, number: int, mb: Microbatch) -> None:
        engines = [replica.runner.engine for replica in self.pipelines[number]]
        tokens = self._batches[number](mb.epoch, mb.step, mb.index)
        version, payload = self.spec.weight_version(mb.step), None
        for engine in engines[:-1]:
            payload = engine.forward(mb, version, payload, tokens).payload
        gradient: Tensor | None = engines[-1].loss(mb, version, payload, tokens).payload
        for engine in reversed(engines[:-1]):
            assert gradient is not None
            gradient = engine.backward(mb, version, gradient).payload

    async def merge(self, epoch: int, merged: Collection[int] | None = None) -> list[ApplyMerge]:
        """Merge the contributions of these pipelines (None: all); returns what each stage's replicas do."""
        given = sorted(range(len(self.pipelines)) if merged is None else merged)
        return [
            ApplyMerge(
                epoch,
                tuple(
                    [
                        await self._merge_part(epoch, stage, part, given)
                        for part in range(part_count(self.spec, stage))
                    ]
                ),
                trained=False,
            )
            for stage in self._stages
        ]

    async def _merge_part(self, epoch: int, stage: int, part: int, given: list[int]) -> StoredObject:
        found = {HOTKEYS[n].ss58: self.pipelines[n][stage].contribution(epoch)[part] for n in given}
        contributions = tuple(
            Contribution(
                hotkey=hotkey,
                tokens=self.spec.data.tokens,
                joined=0,
                stored=StoredObject(
                    key=str(DeltaKey(self.spec.id, epoch, stage, hotkey, part)),
                    digest=blake3(data).hexdigest(),
                    size=len(data),
                ),
            )
            for hotkey, data in found.items()
        )
        assign = MergeAssign(epoch=epoch, stage=stage, part=part, contributions=contributions)
        made = merge_part(self.spec, assign, lambda each: found[each.hotkey])
        assert not made.left_out
        key = MergedKey(self.spec.id, epoch, stage, part, HOTKEYS[given[0]].ss58)
        return await self._objects.put(str(key), made.data)

    async def apply(self, merges: list[ApplyMerge], only: int | None = None) -> None:
        """Every replica, or those of one pipeline, makes the next base."""
        for pipeline in self.pipelines if only is None else [self.pipelines[only]]:
            for replica in pipeline:
                await replica.bases.apply(merges[replica.stage], {})

    def restart(self, number: int) -> None:
        """Every process of a pipeline is killed, and started again on its disk."""
        for stage, replica in enumerate(self.pipelines[number]):
            replica.close()
            self.pipelines[number][stage] = self._replica(number, stage)


@asynccontextmanager
async def overlapped(root: Path, spec: RunSpec, batches: list[Batches]) -> AsyncIterator[OverlappedSwarm]:
    """A swarm with one pipeline for each element of `batches`, which has base 0, and its store."""
    async with embedded(root / "store") as store, ObjectClient() as client:
        swarm = OverlappedSwarm(root, spec, batches, RunObjects(StoreUrls(store), client))
        try:
            await swarm.start()
            yield swarm
        finally:
            for replica in swarm.all():
                replica.close()
