"""Batches of token ids: for a named microbatch, and for held-out evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from iota.codec import open_codec
from iota.data.passes import check_data
from iota.data.reader import ShardReader, Tokens, gather
from iota.data.sample import sequence_indices
from iota.spec import RunSpec


def needs_tokens(spec: RunSpec, stage: int) -> bool:
    """Whether `stage` reads token ids: the first embeds them, the last needs labels, some codecs use them.

    Where attention stays inside documents, which EOS separates, every stage reads them.
    """
    ends = stage in (0, spec.last_stage)
    return ends or spec.data.mask_documents or open_codec(spec.boundary.codec).needs_tokens


SPREAD: Final = 64
"""A measurement is spread over at most so many times its tokens, which are read to count documents."""


@dataclass(frozen=True)
class HeldoutTokens:
    """Batches to measure the held-out loss on."""

    batches: list[Tokens]
    """(sequences, length + 1) each."""
    documents: list[Tokens]
    """Number of each label's document, (sequences, length) for each batch; an EOS is of the one it ends."""


@dataclass(frozen=True)
class Drawn:
    """The sequences of one microbatch."""

    heldout: bool
    """Whether they are of the held-out shard."""
    numbers: list[int]


def drawn_sequences(
    spec: RunSpec, epoch: int, step: int, index: int, *, count: int, heldout_count: int
) -> Drawn:
    """The sequences of a microbatch: they follow from its name, the spec and the data set.

    A held-out microbatch has the same ones in each epoch. All of them together are evenly spaced in the
    held-out shard, and so are those of one: they are of as many documents as can be.

    Args:
        count: training sequences of the data set.
        heldout_count: its held-out ones, as many as `check_data` demands.
    """
    size, schedule = spec.data.sequences, spec.schedule
    if spec.is_heldout(index):
        places = range(index - schedule.microbatches, size * schedule.heldout, schedule.heldout)
        return Drawn(True, [place * heldout_count // (size * schedule.heldout) for place in places])
    return Drawn(
        False,
        sequence_indices(
            spec.seed,
            epoch,
            step,
            index,
            steps=schedule.steps,
            microbatches=schedule.microbatches,
            sequences=size,
            count=count,
            first=spec.data.first_sequence,
        ),
    )


def heldout_sequences(spec: RunSpec, count: int, most_tokens: int) -> list[list[int]]:
    """Numbers of the held-out sequences to measure on, by batch: all `count`, or evenly spaced ones.

    They have at most `most_tokens` tokens, or one batch where that is less.
    """
    size = spec.data.sequences
    batches = min(count, max(size, most_tokens // spec.data.sequence_length)) // size
    chosen = [i * count // (batches * size) for i in range(batches * size)]
    return [chosen[first : first + size] for first in range(0, len(chosen), size)]


class Samples:
    """Batches of token ids, int64 (sequences, sequence_length + 1).

    Reads raise DamagedShard, and the errors of the reader's `fetch`.
    """

    def __init__(self, spec: RunSpec, reader: ShardReader) -> None:
        """Raises ValueError as `check_data`."""
        self._spec, self._reader = spec, reader
        check_data(spec, reader.manifest)

    @property
    def eos_id(self) -> int:
        """Id that ends each document."""
        return self._reader.manifest.tokenizer.eos_id

    async def microbatch(self, epoch: int, step: int, index: int) -> Tokens:
        """The tokens of a microbatch, as `drawn_sequences` says."""
        reader, length = self._reader, self._spec.data.sequence_length
        drawn = drawn_sequences(
            self._spec,
            epoch,
            step,
            index,
            count=reader.sequence_count(length),
            heldout_count=reader.heldout_count(length) if self._spec.is_heldout(index) else 0,
        )
        read = reader.heldout_tokens if drawn.heldout else reader.tokens
        return np.stack(await gather(read(number, length) for number in drawn.numbers))

    def blank_tokens(self) -> Tokens:
        """A batch of zeros: the placeholder for a stage that does not read tokens."""
        return np.zeros((self._spec.data.sequences, self._spec.data.sequence_length + 1), dtype=np.int64)

    async def heldout(self, most_tokens: int) -> HeldoutTokens:
        """Full batches of held-out sequences, always the same ones; see `heldout_sequences`."""
        length, size, eos = self._spec.data.sequence_length, self._spec.data.sequences, self.eos_id
        within = SPREAD * max(size, most_tokens // length)
        numbers = heldout_sequences(self._spec, min(within, self._reader.heldout_count(length)), most_tokens)
        chosen = {n for batch in numbers for n in batch}
        tokens: dict[int, Tokens] = {}
        documents: dict[int, Tokens] = {}
        document = 0
        for n in range(max(chosen, default=-1) + 1):  # those between count the documents that end in them
            read = await self._reader.heldout_tokens(n, length)
            ends = np.cumsum(read[1:] == eos)
            if n in chosen:
                tokens[n], documents[n] = read, document + ends - (read[1:] == eos)
            document += int(ends[-1])
        return HeldoutTokens(
            [np.stack([tokens[n] for n in batch]) for batch in numbers],
            [np.stack([documents[n] for n in batch]) for batch in numbers],
        )
