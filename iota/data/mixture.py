"""Interleaves tokenized sources by their weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import Field

from iota.data.documents import Source
from iota.data.encoding import Encoded, EncodedBlock, Encoder, Skipped, blocks
from iota.spec import Count, Frozen


class FeedState(Frozen):
    """What was taken from a source."""

    cursor: Any = None
    """Where the block begins that the next document is in."""
    taken: Count = 0
    """Documents and parts of that block that were taken."""
    skipped_before: dict[str, Count] = Field(default_factory=dict)
    """Rows skipped before that block, by reason."""
    skipped: dict[str, Count] = Field(default_factory=dict)
    """Rows skipped up to the end of that block, by reason."""
    tokens: Count = 0
    """Tokens taken, each document's EOS among them."""
    documents: Count = 0
    complete: bool = False
    """Whether the source was read to its end."""


class Feed:
    """The tokenized documents of one source, taken one by one; `state` resumes after any of them."""

    def __init__(self, source: Source, weight: float, encoder: Encoder, state: FeedState) -> None:
        self.source, self.weight = source, weight
        self._blocks = encoder.encode(blocks(source, state.cursor, state.skipped_before))
        self._block: EncodedBlock | None = None
        self._cursor, self._taken, self._before = state.cursor, state.taken, state.skipped_before
        self._skipped: Skipped = state.skipped
        self.tokens, self.documents, self.complete = state.tokens, state.documents, False

    @property
    def state(self) -> FeedState:
        """What was taken so far."""
        return FeedState(
            cursor=self._cursor,
            taken=self._taken,
            skipped_before=self._before,
            skipped=self._skipped,
            tokens=self.tokens,
            documents=self.documents,
            complete=self.complete,
        )

    @property
    def fraction(self) -> float | None:
        """Share of the source that was read."""
        return 1.0 if self.complete else self.source.fraction(self._cursor)

    def take(self) -> Encoded | None:
        """The next document or part; None at the source's end. Raises as `Source.read`."""
        while self._block is None or self._taken >= len(self._block.documents):
            first = self._block is None
            self._block = next(self._blocks, None)
            if self._block is None:
                self.complete = True
                return None
            self._cursor, self._before = self._block.start, self._block.skipped_before
            self._skipped = self._block.skipped
            self._taken = self._taken if first else 0
        found = self._block.documents[self._taken]
        self._taken += 1
        self.tokens += found.tokens.size + found.last
        self.documents += found.last
        return found


def mix(feeds: Sequence[Feed]) -> Iterator[tuple[int, Encoded]]:
    """Documents with the number of their source, always from the one that lies furthest behind its weight.

    It stops where the first source ends, since no text is repeated. Weights are shares of tokens.
    """
    while True:
        number = min(range(len(feeds)), key=lambda n: (feeds[n].tokens / feeds[n].weight, n))
        if (found := feeds[number].take()) is None:
            return
        yield number, found
