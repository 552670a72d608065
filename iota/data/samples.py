"""Batches of token ids by the name of a microbatch, and for held-out evaluation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable

import numpy as np

from iota.codec import open_codec
from iota.data.reader import ShardReader, Tokens
from iota.data.sample import sequence_indices
from iota.spec import RunSpec


def needs_tokens(spec: RunSpec, stage: int) -> bool:
    """Stage 0 embeds token ids, the last has its labels in them, and some codecs look them up."""
    return stage in (0, spec.last_stage) or open_codec(spec.boundary.codec).needs_tokens


class Samples:
    """Batches of (sequences, sequence_length + 1) token ids.

    Every call raises DamagedShard, and what the reader's `fetch` raises.
    """

    def __init__(self, spec: RunSpec, reader: ShardReader) -> None:
        self._spec, self._reader = spec, reader

    async def microbatch(self, epoch: int, step: int, index: int) -> Tokens:
        """The tokens of a microbatch follow from its name alone."""
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
        return await _stacked(self._reader.tokens(s, length) for s in wanted)

    def nothing(self) -> Tokens:
        """What a stage that reads no tokens is given in their place."""
        return np.zeros((self._spec.data.sequences, self._spec.data.sequence_length + 1), dtype=np.int64)

    async def heldout(self, most_batches: int) -> list[Tokens]:
        """The first held-out sequences, in whole batches: the same ones every time."""
        length, size = self._spec.data.sequence_length, self._spec.data.sequences
        batches = min(most_batches, self._reader.heldout_count(length) // size)
        return [
            await _stacked(self._reader.heldout_tokens(n, length) for n in range(b * size, (b + 1) * size))
            for b in range(batches)
        ]


async def _stacked(reads: Iterable[Awaitable[Tokens]]) -> Tokens:
    async def one(read: Awaitable[Tokens]) -> Tokens:
        return await read

    try:
        async with asyncio.TaskGroup() as tasks:
            done = [tasks.create_task(one(read)) for read in reads]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return np.stack([task.result() for task in done])
