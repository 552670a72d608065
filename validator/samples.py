"""Token ids for replays and for held-out evaluation, read from the run's shards."""

from __future__ import annotations

import asyncio

import numpy as np

from iota.compute.tokens import Tokens
from iota.data.reader import ShardReader
from iota.data.sample import sequence_indices
from iota.spec import Codec, RunSpec


def needs_tokens(spec: RunSpec, stage: int) -> bool:
    """Whether a stage reads token ids: to embed, for labels, or for an anchor."""
    return stage in (0, spec.last_stage) or spec.boundary.codec is Codec.RESBM_ANCHOR


class Samples:
    """Batches of (sequences, sequence_length + 1) token ids."""

    def __init__(self, spec: RunSpec, reader: ShardReader) -> None:
        self._spec, self._reader = spec, reader

    async def microbatch(self, epoch: int, step: int, index: int) -> Tokens:
        spec, length = self._spec, self._spec.data.sequence_length
        wanted = sequence_indices(
            spec.seed,
            epoch,
            step,
            index,
            steps=spec.schedule.steps,
            microbatches=spec.schedule.microbatches,
            sequences=spec.data.sequences,
            count=self._reader.sequence_count(length),
        )
        return np.stack(await asyncio.gather(*(self._reader.tokens(s, length) for s in wanted)))

    async def heldout(self, most_batches: int) -> list[Tokens]:
        """The first held-out sequences, in whole batches: the same ones every time."""
        length, size = self._spec.data.sequence_length, self._spec.data.sequences
        batches = min(most_batches, self._reader.heldout_count(length) // size)
        return [
            np.stack(
                await asyncio.gather(
                    *(self._reader.heldout_tokens(n, length) for n in range(b * size, (b + 1) * size))
                )
            )
            for b in range(batches)
        ]
