"""The states that a replica begins epochs with, from its disk.

Without overlap the start state is written with the base. With overlap (`outer.overlap`) a replica that goes
on begins with its own start, made here from the anchor and from its own pseudo-gradient, and everybody else
with the anchor.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import torch

from iota.compute.in_order import in_order
from iota.compute.state import StageState, load_state
from iota.model.layout import run_shapes
from iota.model.weight_dtype import weight_dtype
from iota.objects import part_sizes
from iota.outer.base_values import BaseRoots
from iota.outer.delta_codecs import open_delta_codec
from iota.outer.nesterov import OuterState
from iota.outer.own_start import own_start
from iota.outer.partition import PartError
from iota.outer.pseudo_gradient import unflatten
from iota.protocol.receipts import OpKind
from iota.spec import RunSpec
from miner.core.effects import LoadState
from miner.delta_files import DeltaFiles
from miner.device import DeviceThread
from miner.disk import MinerDisk
from miner.op_records import StateLost
from miner.ops import OpRunner


@dataclass(frozen=True)
class Start:
    """What a life begins an epoch with."""

    state: StageState
    base: BaseRoots
    """Of the base that it begins from: with overlap the anchor, also where it has an own start."""
    feedback: tuple[str, ...] = ()
    """Leaves of its error feedback; empty for none."""
    own: bool = False
    """Its weights are an own start's, which may be on no disk yet."""


def kept_start(spec: RunSpec, stage: int, disk: MinerDisk, effect: LoadState) -> Start:
    """The start of `effect` without overlap. Raises StateError and PartError for a damaged disk."""
    state, base = load_state(disk.start_state(effect.epoch), spec, stage), disk.base_roots(effect.epoch)
    if not effect.carries:
        return Start(StageState(state.weights), base)
    return Start(state, base, DeltaFiles(spec, disk).leaves(effect.epoch))


class OwnStarts:
    """Start states of a run with overlap. An own start is on the disk with the life's first commitment."""

    def __init__(self, spec: RunSpec, runner: OpRunner, device: DeviceThread) -> None:
        self._spec, self._runner, self._device = spec, runner, device

    async def get(self, effect: LoadState, trained: int) -> Start:
        """The start of `effect`, where the engine holds the last version of the epoch `trained`.

        Raises StateError and PartError for a damaged disk, StateLost where there is nothing to carry on, and
        OSError where the disk is full.
        """
        runner, disk, epoch = self._runner, self._runner.disk, effect.epoch
        roots = disk.base_roots(self._spec.anchor(epoch))
        if epoch == 0 or not effect.carries:
            await runner.recorder.run(lambda: self._part_from_other_life(effect, roots))
            return Start(await asyncio.to_thread(self._weights, epoch, own=False), roots)
        if disk.start_state(epoch).exists():
            state = await asyncio.to_thread(load_state, disk.start_state(epoch), self._spec, runner.stage)
        elif trained == epoch - 1:
            state = await self._make(epoch)
        else:
            raise StateLost(f"epoch {epoch} goes on from epoch {epoch - 1}, of which nothing is here")
        runner.log.forget_before(epoch - 1)
        return Start(state, roots, DeltaFiles(self._spec, disk).leaves(epoch), own=True)

    def _part_from_other_life(self, effect: LoadState, anchor: BaseRoots) -> None:
        """Have the log forget a life that had begun this epoch with another start, and repeat none of it."""
        log = self._runner.log
        begun = log.find((effect.epoch, effect.step, 0, 0, OpKind.COMMIT))
        if begun is None or begun.commitment is None or begun.commitment.weights != anchor.start:
            log.begin_life()

    async def _make(self, epoch: int) -> StageState:
        """The own start of `epoch`, with the moments that the engine has."""
        started = await asyncio.to_thread(self._weights, epoch, own=True)

        def rebased() -> StageState:
            self._runner.engine.rebase(started.weights)
            return self._runner.engine.state()

        return await self._device.run(rebased)

    def _weights(self, epoch: int, *, own: bool) -> StageState:
        """The anchor's weights or the own start's, with one partition of fp32 in memory a thread."""
        spec, stage, disk = self._spec, self._runner.stage, self._runner.disk
        codec, sizes = open_delta_codec(spec.outer.codec), part_sizes(spec, stage)
        given = disk.delta_parts(epoch - 1) if own else []
        if own and len(given) != len(sizes):
            raise PartError(f"{disk.delta(epoch - 1)} does not hold the pseudo-gradient of epoch {epoch - 1}")
        made, first = torch.empty(sum(sizes), dtype=weight_dtype(spec)), 0

        def part(numbered: tuple[int, OuterState]) -> torch.Tensor:
            number, partition = numbered
            values = partition.weights
            if own:
                contribution = codec.decode(given[number].read_bytes(), values.size)
                values = own_start(spec, epoch, partition, contribution)
            return torch.from_numpy(values).to(made.dtype)  # to the nearest, as a base's weights

        for values in in_order(part, enumerate(disk.base_partitions(spec, stage, spec.anchor(epoch)))):
            made[first : first + values.numel()] = values
            first += values.numel()
        like = {name: torch.empty(shape, device="meta") for name, shape in run_shapes(spec, stage).items()}
        return StageState(unflatten(made, like))
