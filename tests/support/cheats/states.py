"""Cheats in STEP, in commitments and in pseudo-gradients: the state that a miner says it has is another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iota.compute.engine import Engine
from iota.compute.host_copy import HostCopy
from iota.compute.output import DeviceStep
from iota.model.layout import run_shapes
from iota.objects import DeltaKey, part_sizes
from iota.outer import open_delta_codec
from iota.outer.partition import Vector, split
from iota.protocol.messages import Delta
from iota.spec import RunSpec
from miner.duty_worker import DutyWorker
from tests.support.cheats.first_lie import lied
from tests.support.miner_program import run_miner

Tensors = dict[str, Tensor]
Steps = Callable[[RunSpec, int], bool]
"""Whether a cheat lies in a step of its epoch."""
Alter = Callable[[Tensors, Tensors], None]
"""Changes the weights after a STEP in place; the second are those before it."""
DeltaChange = Callable[[RunSpec, int, Vector], Vector]
"""A false pseudo-gradient (N,) of a stage."""


def every_step(spec: RunSpec, step: int) -> bool:
    return True


def second_step(spec: RunSpec, step: int) -> bool:
    return step == 1


def last_step(spec: RunSpec, step: int) -> bool:
    return step == spec.schedule.steps - 1


class AlteredSteps(Engine):
    """Steps, and in some STEPs changes what came out of it."""

    def __init__(self, spec: RunSpec, stage: int, *, alter: Alter, steps: Steps, **parts: Any) -> None:
        super().__init__(spec, stage, **parts)
        self._alter, self._lies_in = alter, steps
        self._epoch = 0

    def _run_graph(self, mb: Any, flying: Any) -> Any:
        self._epoch = mb.epoch
        return super()._run_graph(mb, flying)

    def step(self, step: int, count: int, learning_rate: float) -> DeviceStep:
        if not self._lies_in(self.spec, step):
            return super().step(step, count, learning_rate)
        before = self.state().weights
        made = super().step(step, count, learning_rate)
        lied(self._epoch, step)
        with torch.no_grad():
            self._alter(self._loaded_versions().weights, before)
        return made


def alters(alter: Alter, steps: Steps = every_step) -> None:
    """Run a miner whose STEPs `alter` changes."""
    run_miner(make_engine=partial(AlteredSteps, alter=alter, steps=steps))


def undo(weights: Tensors, before: Tensors) -> None:
    """Take the whole change back."""
    for name, weight in weights.items():
        weight.copy_(before[name])


def nudge(weights: Tensors, before: Tensors) -> None:
    """Take the change back but for one weight, so that each version has another root."""
    undo(weights, before)
    weights[min(weights)].view(-1)[0] += 1e-3


def undo_one(weights: Tensors, before: Tensors) -> None:
    """Take the change of the smallest tensor back."""
    name = min(weights, key=lambda name: (weights[name].numel(), name))
    weights[name].copy_(before[name])


def scramble(weights: Tensors, before: Tensors) -> None:
    """A random change in place of the true one, of its norm in each tensor."""
    for name, weight in weights.items():
        drawn = torch.randn_like(weight)
        weight.copy_(before[name] + drawn * ((weight - before[name]).norm() / drawn.norm()))


def never_steps() -> None:
    """Receipts STEPs, and never changes its weights."""
    alters(undo)


def still() -> None:
    """Never steps, and nudges one weight."""
    alters(nudge)


def foreign_change() -> None:
    """Changes its weights at random, by as much as the STEP would."""
    alters(scramble)


def one_step() -> None:
    """Leaves out one STEP an epoch."""
    alters(undo, second_step)


def one_tensor() -> None:
    """Leaves one tensor out of one STEP an epoch."""
    alters(undo_one, second_step)


def no_last_step() -> None:
    """Receipts its epoch's last STEP, and leaves it out."""
    alters(undo, last_step)


class FastEngine(AlteredSteps):
    """Steps with three times the learning rate that it was told, and receipts the told one."""

    def step(self, step: int, count: int, learning_rate: float) -> DeviceStep:
        return super().step(step, count, 3 * learning_rate)


def fast() -> None:
    """Three times the learning rate."""
    run_miner(make_engine=partial(FastEngine, alter=lambda weights, before: None, steps=every_step))


class FalseCommits(AlteredSteps):
    """Goes on with its true state, and commits to another one, of which it keeps the snapshot."""

    def copy_state(self) -> HostCopy:
        state = self.state()
        return HostCopy(replace(state, weights={name: w * 1.001 for name, w in state.weights.items()}))


def false_commitment() -> None:
    """Commits to weights that it does not go on with."""
    run_miner(make_engine=partial(FalseCommits, alter=lambda weights, before: None, steps=every_step))


# ---- pseudo-gradients --------------------------------------------------------------------------


def deltas(change: DeltaChange) -> None:
    """Run a miner that gives what `change` makes of its pseudo-gradients."""
    honest = DutyWorker._store_delta

    async def store_delta(self: DutyWorker, epoch: int) -> Delta:
        lied(epoch, self.spec.schedule.steps)
        files = self.disk.delta_parts(epoch)
        codec, sizes = open_delta_codec(self.spec.outer.codec), part_sizes(self.spec, self.stage)
        true = [codec.decode(file.read_bytes(), size) for file, size in zip(files, sizes, strict=True)]
        made = change(self.spec, self.stage, np.concatenate(true))
        for file, part in zip(files, split(made, self.spec.outer.part_elements), strict=True):
            file.write_bytes(codec.encode(part))
        return await honest(self, epoch)

    DutyWorker._store_delta = store_delta  # type: ignore[method-assign]
    run_miner()


def largest(spec: RunSpec, stage: int) -> slice:
    """Where the largest tensor of a stage lies in its vector."""
    shapes = run_shapes(spec, stage)
    sizes = [torch.Size(shapes[name]).numel() for name in sorted(shapes)]
    at = sizes.index(max(sizes))
    end = list(accumulate(sizes))[at]
    return slice(end - sizes[at], end)


def reversed_delta() -> None:
    """A pseudo-gradient times -100."""
    deltas(lambda spec, stage, delta: delta * -100)


def flipped_delta() -> None:
    """A pseudo-gradient with the other sign: within what the optimizer can make."""
    deltas(lambda spec, stage, delta: -delta)


def nan_delta() -> None:
    """A pseudo-gradient of NaN."""
    deltas(lambda spec, stage, delta: delta * float("nan"))


def huge_delta() -> None:
    """A finite pseudo-gradient of 1e30."""
    deltas(lambda spec, stage, delta: delta * 0 + 1e30)


def one_delta_tensor() -> None:
    """One tensor of its pseudo-gradient is 10 % larger."""

    def enlarged(spec: RunSpec, stage: int, delta: Vector) -> Vector:
        made = delta.copy()
        made[largest(spec, stage)] *= 1.1
        return made

    deltas(enlarged)


def one_delta_element() -> None:
    """One element of its pseudo-gradient is nudged by a ten-thousandth."""

    def nudged(spec: RunSpec, stage: int, delta: Vector) -> Vector:
        made = delta.copy()
        made[largest(spec, stage).start] += 1e-4
        return made

    deltas(nudged)


def no_delta() -> None:
    """Trains, and never gives its pseudo-gradient."""

    async def store_delta(self: DutyWorker, epoch: int) -> None:
        lied(epoch, self.spec.schedule.steps)

    DutyWorker._store_delta = store_delta  # type: ignore[assignment,method-assign]
    run_miner()


def unreadable_delta() -> None:
    """Stores zeros of the right size that are no file."""

    async def store_delta(self: DutyWorker, epoch: int) -> Delta:
        lied(epoch, self.spec.schedule.steps)
        sizes = [file.stat().st_size for file in self.disk.delta_parts(epoch)]
        keys = [DeltaKey(self.spec.id, epoch, self.stage, self.hotkey, n) for n in range(len(sizes))]
        puts = [self.objects.put(str(key), bytes(size)) for key, size in zip(keys, sizes, strict=True)]
        return Delta(epoch=epoch, parts=tuple(await asyncio.gather(*puts)))

    DutyWorker._store_delta = store_delta  # type: ignore[method-assign]
    run_miner()
