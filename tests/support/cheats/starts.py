"""Cheats in what an epoch begins with, in runs with overlap."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from iota.compute.engine import Engine
from iota.compute.host_copy import HostCopy
from iota.compute.state import StageState
from iota.objects import DeltaKey, part_sizes
from iota.outer import open_delta_codec
from iota.protocol.messages import Delta
from miner.core.effects import LoadState
from miner.duty_worker import DutyWorker
from miner.starts import OwnStarts, Start
from tests.support.cheats.first_lie import lied
from tests.support.miner_program import run_miner

Tensors = dict[str, Tensor]


def hides_noise() -> None:
    """Contributes noise of its difference's size, and goes on from what it has really trained."""

    async def store_delta(self: DutyWorker, epoch: int) -> Delta:
        lied(epoch, self.spec.schedule.steps)
        codec, sizes = open_delta_codec(self.spec.outer.codec), part_sizes(self.spec, self.stage)
        keys = [DeltaKey(self.spec.id, epoch, self.stage, self.hotkey, n) for n in range(len(sizes))]
        rng = np.random.default_rng(epoch)
        with tempfile.TemporaryDirectory() as folder:
            files = []
            for number, file in enumerate(self.disk.delta_parts(epoch)):
                part = codec.decode(file.read_bytes(), sizes[number])
                files.append(Path(folder, str(number)))
                signs = rng.choice(np.array([-1, 1], np.float32), part.size)
                files[-1].write_bytes(codec.encode(part * signs))
            return Delta(epoch=epoch, parts=await self._put_files(keys, files))

    DutyWorker._store_delta = store_delta  # type: ignore[method-assign]
    run_miner()


def nudges_its_start() -> None:
    """Begins each epoch with its own start but for one weight, and commits to that."""
    honest = OwnStarts._weights

    def weights(self: OwnStarts, epoch: int, *, own: bool) -> StageState:
        made = honest(self, epoch, own=own)
        if own:
            lied(epoch, 0)
            made.weights[min(made.weights)].view(-1)[0] += 1e-2
        return made

    OwnStarts._weights = weights  # type: ignore[method-assign]
    run_miner()


class SaysItsOwn(Engine):
    """Computes with what it was loaded with, and commits once to what `said` has."""

    said: Tensors | None = None

    def copy_state(self) -> HostCopy:
        said, SaysItsOwn.said = SaysItsOwn.said, None
        return super().copy_state() if said is None else HostCopy(replace(self.state(), weights=said))


def computes_with_the_anchor() -> None:
    """Commits to its own start, and computes with the anchor."""
    honest = OwnStarts.get

    async def get(self: OwnStarts, effect: LoadState, trained: int) -> Start:
        start = await honest(self, effect, trained)
        if not effect.epoch or not effect.carries:
            return start
        lied(effect.epoch, 0)
        anchor = await asyncio.to_thread(self._weights, effect.epoch, own=False)
        SaysItsOwn.said = start.state.weights
        return replace(start, state=replace(start.state, weights=anchor.weights))

    OwnStarts.get = get  # type: ignore[method-assign]
    run_miner(make_engine=SaysItsOwn)
