"""Batches of token ids: for a named microbatch, and for held-out evaluation."""

from __future__ import annotations

import numpy as np

from iota.codec import open_codec
from iota.data.reader import ShardReader, Tokens, gather
from iota.data.sample import sequence_indices
from iota.spec import RunSpec


def needs_tokens(spec: RunSpec, stage: int) -> bool:
    """Whether `stage` reads token ids: the first embeds them, the last needs labels, some codecs use them."""
    return stage in (0, spec.last_stage) or open_codec(spec.boundary.codec).needs_tokens


class Samples:
    """Batches of token ids, int64 (sequences, sequence_length + 1).

    Reads raise DamagedShard, and the errors of the reader's `fetch`.
    """

    def __init__(self, spec: RunSpec, reader: ShardReader) -> None:
        self._spec, self._reader = spec, reader

    async def microbatch(self, epoch: int, step: int, index: int) -> Tokens:
        """The tokens of a microbatch. They depend on its name and the spec only."""
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
        return np.stack(await gather(self._reader.tokens(s, length) for s in wanted))

    def blank_tokens(self) -> Tokens:
        """A batch of zeros: the placeholder for a stage that does not read tokens."""
        return np.zeros((self._spec.data.sequences, self._spec.data.sequence_length + 1), dtype=np.int64)

    async def heldout(self, most_batches: int) -> list[Tokens]:
        """The first `most_batches` full batches of held-out sequences, or fewer if there are fewer."""
        length, size = self._spec.data.sequence_length, self._spec.data.sequences
        batches = min(most_batches, self._reader.heldout_count(length) // size)
        return [
            np.stack(
                await gather(self._reader.heldout_tokens(n, length) for n in range(b * size, (b + 1) * size))
            )
            for b in range(batches)
        ]
