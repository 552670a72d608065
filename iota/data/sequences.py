"""Numbering of fixed-length sequences over shards."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from iota.console.counts import counted
from iota.data.manifest import Shard


@dataclass(frozen=True)
class Span:
    """Tokens [start, stop) of one shard."""

    shard: Shard
    start: int
    stop: int


class SequenceMap:
    """Sequences of `length` tokens over `shards`, numbered from 0.

    Sequence i of a shard is its tokens [i·length, i·length + length]: `length` inputs, and as labels the
    same shifted by one. Neighbouring sequences therefore share one token. Sequences do not cross shards;
    up to `length` tokens at the end of each shard are unused.

    Raises:
        ValueError: if `length` is below 1.
    """

    def __init__(self, shards: Sequence[Shard], length: int) -> None:
        if length < 1:
            raise ValueError(f"a sequence cannot have {length} tokens: give a length of at least 1")
        self._shards = shards
        self._length = length
        self._ends = list(accumulate((shard.tokens - 1) // length for shard in shards))

    @property
    def count(self) -> int:
        """Number of sequences."""
        return self._ends[-1] if self._ends else 0

    def locate(self, index: int) -> Span:
        """The shard and tokens of sequence `index`. Raises `ValueError` if there is no such sequence."""
        if not 0 <= index < self.count:
            raise ValueError(
                f"there is no sequence {index}: the data holds {self.count} of"
                f" {counted(self._length, 'token')}; use shorter sequences or prepare more data"
            )
        number = bisect_right(self._ends, index)
        first = self._ends[number - 1] if number else 0
        start = (index - first) * self._length
        return Span(self._shards[number], start, start + self._length + 1)
