"""Whole epochs of a run with overlap, and miners that lie of what they begin with."""

from __future__ import annotations

from typing import Any

import numpy as np

from iota.objects import DeltaKey, part_sizes
from iota.outer import open_delta_codec
from iota.outer.base import named_weights
from iota.outer.own_start import own_start
from iota.outer.partition import Vector
from iota.protocol.frames import StoredObject
from iota.protocol.records import LifeRecord
from iota.spec import AuditSpec, Overlap
from tests.support.audited_miners import Honest, Miner
from tests.support.audited_runs import World
from tests.support.small_runs import small_run


class OverlappingWorld(World):
    """A `World` whose miners begin each epoch with their own start; its merges are done before that."""

    def contribution(self, epoch: int, miner: Miner) -> Vector:
        """What the merge of an epoch has of a miner, decoded."""
        codec, sizes = open_delta_codec(self.spec.outer.codec), part_sizes(self.spec, miner.stage)
        keys = [str(DeltaKey(self.run, epoch, miner.stage, miner.hotkey, n)) for n in range(len(sizes))]
        return np.concatenate([codec.decode(self.store[k], n) for k, n in zip(keys, sizes, strict=True)])

    def _begin(self, epoch: int, miner: Miner) -> None:
        start = anchor = self.anchor(epoch, miner.stage)
        if epoch:
            own = own_start(anchor, self.contribution(epoch - 1, miner))
            start = miner.way.start(miner, own, anchor)
            miner.engine.rebase(named_weights(self.spec, miner.stage, start))
        self._set_start(epoch, miner, start)

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


def overlapping_world(ways: dict[int, Honest] | None = None, epochs: int = 2, **changes: Any) -> World:
    """A trained run with overlap; `changes` are of its spec's sections."""
    outer = {"overlap": Overlap.ONE_EPOCH, "eta": 0.7, "momentum": 0.9, **changes.pop("outer", {})}
    audit = AuditSpec(ops=1, commit_every=2, window_steps=3, extra_every=1)
    world = OverlappingWorld(small_run(outer=outer, audit=audit, **changes), ways)
    for epoch in range(epochs):
        world.train(epoch)
    return world
