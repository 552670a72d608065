"""Whole epochs of a run with overlap, and miners that lie of what they begin with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from iota.compute.state import StageState
from iota.objects import DeltaKey, part_sizes
from iota.outer import open_delta_codec
from iota.outer.base import named_weights
from iota.outer.nesterov import OuterState
from iota.outer.own_start import own_start
from iota.outer.partition import Vector
from iota.protocol.frames import StoredObject
from iota.protocol.records import LifeRecord
from iota.spec import AuditSpec, Overlap
from tests.support.audited_miners import Honest, Miner
from tests.support.audited_runs import DEVICE, World
from tests.support.small_runs import small_run


class OverlappingWorld(World):
    """A `World` whose miners begin each epoch with their own start; its merges are done before that."""

    def contribution(self, epoch: int, miner: Miner) -> Vector:
        """What the merge of an epoch has of a miner, decoded."""
        codec, sizes = open_delta_codec(self.spec.outer.codec), part_sizes(self.spec, miner.stage)
        keys = [str(DeltaKey(self.run, epoch, miner.stage, miner.hotkey, n)) for n in range(len(sizes))]
        return np.concatenate([codec.decode(self.store[k], n) for k, n in zip(keys, sizes, strict=True)])

    def _begin(self, epoch: int, miner: Miner) -> None:
        anchor = self.anchor(epoch, miner.stage)
        self._set_start(epoch, miner, anchor.weights)
        if epoch:
            own = own_start(self.spec, epoch, anchor, self.contribution(epoch - 1, miner))
            start = miner.way.start(miner, epoch, own, anchor)
            miner.start = named_weights(self.spec, miner.stage, start)
            miner.engine.rebase(miner.start)

    def _take_base(self, stage: int) -> None:
        """The merge goes on while its miners train."""

    def lives_of(self, epoch: int, miner: Miner) -> tuple[LifeRecord, ...]:
        """As of any run; the first begins with its own start where all that it contributed was merged."""
        first, *later = super().lives_of(epoch, miner)
        return (first.model_copy(update={"began": self.began(epoch, miner)}), *later)

    def began(self, epoch: int, miner: Miner) -> tuple[StoredObject, ...]:
        """The parts that a miner's own start of an epoch is made of."""
        if not epoch:
            return ()
        before = self.records[epoch - 1]
        whole = [d for d in before.deltas if d.miner not in {each.miner for each in before.left_out}]
        return next((delta.parts for delta in whole if delta.miner == miner.hotkey), ())


def overlapping_world(
    ways: dict[int, Honest] | None = None, epochs: int = 2, device: str = DEVICE, **changes: Any
) -> OverlappingWorld:
    """A trained run with overlap; `changes` are of its spec's sections."""
    outer = {"overlap": Overlap.ONE_EPOCH, "eta": 0.7, "momentum": 0.9, **changes.pop("outer", {})}
    audit = AuditSpec(ops=1, commit_every=2, window_steps=3, extra_every=1)
    world = OverlappingWorld(small_run(outer=outer, audit=audit, **changes), ways, device)
    for epoch in range(epochs):
        world.train(epoch)
    return world


# ---- miners that lie of their start ----------------------------------------------------------------


class HidesNoise(Honest):
    """Contributes noise of its difference's size, and goes on from what it has really trained."""

    def __init__(self) -> None:
        self._true: Vector = np.empty(0, np.float32)

    def delta(self, delta: Vector) -> Vector:
        self._true = delta.copy()
        rng = np.random.default_rng(delta.size)
        return delta * rng.choice(np.array([-1, 1], np.float32), delta.size)

    def start(self, miner: Miner, epoch: int, own: Vector, anchor: OuterState) -> Vector:
        return own_start(miner.spec, epoch, anchor, self._true)


class NudgedStart(Honest):
    """Begins with its own start but for one weight."""

    def start(self, miner: Miner, epoch: int, own: Vector, anchor: OuterState) -> Vector:
        nudged = own.copy()
        nudged[0] += np.float32(1e-2)
        return nudged


class KeepsNothing(Honest):
    """Begins with the anchor, as who has lost its disk."""

    def start(self, miner: Miner, epoch: int, own: Vector, anchor: OuterState) -> Vector:
        return anchor.weights


class SaysItsOwn(Honest):
    """Computes with the anchor, and commits to its own start."""

    def __init__(self) -> None:
        self._own: dict[str, Tensor] = {}

    def start(self, miner: Miner, epoch: int, own: Vector, anchor: OuterState) -> Vector:
        self._own = named_weights(miner.spec, miner.stage, own)
        return anchor.weights

    def commits(self, version: int, state: StageState) -> StageState:
        return replace(state, weights=self._own) if version == 0 and self._own else state


class OtherRest(Honest):
    """Names another rest of the base that its own start is made of."""

    def start(self, miner: Miner, epoch: int, own: Vector, anchor: OuterState) -> Vector:
        miner.rest = "5" * 64
        return own
