"""Cheats in a stored pseudo-gradient's bytes, in when it comes, and in the error feedback that it leaves."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from torch import Tensor

from iota.objects import DeltaKey
from iota.objects.delta_sizes import SPARSE_KEPT
from iota.outer.error_feedback import feedback_leaf, feedback_root, read_feedback, write_feedback
from iota.protocol.messages import Delta
from iota.spec import OuterCodec, RunSpec
from miner.delta_files import DeltaFiles, EpochStart
from miner.duty_worker import DutyWorker
from miner.retry import FAILURES
from tests.support.cheats.first_lie import lied
from tests.support.cheats.states import DeltaChange, deltas
from tests.support.miner_program import run_miner

log = logging.getLogger(__name__)

BytesChange = Callable[[RunSpec, bytes], bytes]
"""What is stored in place of an encoded partition."""
LATE_S: Final = 45.0
"""Longer than anybody is waited for once others are there."""
NAN: Final = {
    OuterCodec.NONE: b"\x00\x00\xc0\x7f",
    OuterCodec.INT8: b"\xc0\x7f",
    OuterCodec.SPARSE: b"\xc0\x7f",
}
"""A NaN of the form that an encoded partition begins with."""


def stores(change: BytesChange) -> None:
    """Run a miner that stores what `change` makes of its encoded pseudo-gradient."""
    honest = DutyWorker._store_delta

    async def store_delta(self: DutyWorker, epoch: int) -> Delta:
        lied(epoch, self.spec.schedule.steps)
        for file in self.disk.delta_parts(epoch):
            file.write_bytes(change(self.spec, file.read_bytes()))
        return await honest(self, epoch)

    DutyWorker._store_delta = store_delta  # type: ignore[method-assign]
    run_miner()


def scaled() -> None:
    """Ten times its pseudo-gradient."""
    deltas(lambda spec, stage, delta: delta * 10)


def one_chunk() -> None:
    """All of its pseudo-gradient's norm in the first elements, as many as `sparse64` sends of a chunk."""

    def gathered(spec: RunSpec, stage: int, delta: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        made = np.zeros_like(delta)
        kept = SPARSE_KEPT[OuterCodec.SPARSE64]
        made[:kept] = np.linalg.norm(delta) / np.sqrt(kept)
        return made

    change: DeltaChange = gathered
    deltas(change)


def nan() -> None:
    """NaN in the codec's own form."""
    stores(lambda spec, data: NAN[spec.outer.codec] + data[len(NAN[spec.outer.codec]) :])


def garbage() -> None:
    """Random bytes of the right size."""
    stores(lambda spec, data: random.Random(7).randbytes(len(data)))


def short() -> None:
    """Random bytes of another size than a pseudo-gradient has."""
    stores(lambda spec, data: random.Random(7).randbytes(len(data) - 1))


def bogus_index() -> None:
    """An index of a `sparse` chunk that is not above the one before."""

    def twisted(spec: RunSpec, data: bytes) -> bytes:
        kept = SPARSE_KEPT[spec.outer.codec]
        chunks = len(data) // (4 + kept * 12 // 8 + kept // 4)
        first = 4 * chunks
        return data[:first] + data[first + 3 : first + 6] + data[first : first + 3] + data[first + 6 :]

    stores(twisted)


def late() -> None:
    """Comes long after all others."""
    honest = DutyWorker._store_delta

    async def store_delta(self: DutyWorker, epoch: int) -> Delta:
        lied(epoch, self.spec.schedule.steps)
        await asyncio.sleep(LATE_S)
        return await honest(self, epoch)

    DutyWorker._store_delta = store_delta  # type: ignore[method-assign]
    run_miner()


def overwritten() -> None:
    """Stores its pseudo-gradient, and then tries to put noise in its place."""
    honest = DutyWorker._store_delta

    async def store_delta(self: DutyWorker, epoch: int) -> Delta:
        lied(epoch, self.spec.schedule.steps)
        report = await honest(self, epoch)
        for number, part in enumerate(report.parts):
            key = DeltaKey(self.spec.id, epoch, self.stage, self.hotkey, number)
            try:
                await self.objects.put(str(key), random.Random(7).randbytes(part.size))
            except FAILURES as error:
                log.warning("part %d cannot be overwritten: %s", number, error)
        return report

    DutyWorker._store_delta = store_delta  # type: ignore[method-assign]
    run_miner()


def forged_feedback() -> None:
    """Commits to twenty times the error feedback that it has, so as to send several epochs' worth."""
    honest = DeltaFiles.write

    def write(self: DeltaFiles, start: EpochStart, final: Mapping[str, Tensor]) -> str:
        honest(self, start, final)
        lied(start.epoch, self._spec.schedule.steps)
        folder, leaves = self._disk.feedback(start.epoch + 1), []
        for file in sorted(folder.glob("part-*")):
            data = file.read_bytes()
            data = write_feedback(read_feedback(data, len(data) // 2) * np.float32(20))
            file.write_bytes(data)
            leaves.append(feedback_leaf(data))
        (folder / "leaves").write_text("\n".join(leaves))
        return feedback_root(leaves)

    DeltaFiles.write = write  # type: ignore[method-assign]
    run_miner()
