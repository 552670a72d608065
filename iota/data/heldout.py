"""Selection of the documents that are held out for evaluation, in one pass over a stream."""

from __future__ import annotations

import heapq
from pathlib import Path

import numpy as np
import numpy.typing as npt
from blake3 import blake3

Tokens = npt.NDArray[np.unsignedinteger]

_MIN_DOCUMENTS = 4
"""Documents longer than 1/4 of the target are never held out, so that several documents are."""


class HeldOut:
    """The documents of lowest rank whose lengths add up to at least `target` tokens.

    A document's rank is a hash of its number and name. The selection is therefore a uniform sample of the
    whole source, and the same on every machine. Documents that later ones displace return to the training
    stream.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._heap: list[tuple[int, int, Tokens]] = []  # (-rank, number, tokens): the largest rank on top
        self.tokens = 0

    @property
    def full(self) -> bool:
        """Whether the target is reached."""
        return self.tokens >= self._target

    def offer(self, number: int, name: str, tokens: Tokens) -> list[tuple[int, Tokens]]:
        """Offer a document. Returns the documents to train on: this one, or those that it displaces.

        `tokens` has shape (length,).
        """
        rank = _rank(number, name)
        if tokens.size > self._target // _MIN_DOCUMENTS or (self.full and rank >= -self._heap[0][0]):
            return [(number, tokens)]
        heapq.heappush(self._heap, (-rank, number, tokens))
        self.tokens += tokens.size
        displaced = []
        while self.tokens - self._heap[0][2].size >= self._target:
            _, old_number, old = heapq.heappop(self._heap)
            self.tokens -= old.size
            displaced.append((old_number, old))
        return displaced

    def documents(self) -> list[Tokens]:
        """Tokens of the selected documents, in the order of the source."""
        return [tokens for _, _, tokens in sorted(self._heap, key=lambda entry: entry[1])]

    def save(self, path: Path) -> None:
        """Write the selection to an .npz file that `load` reads."""
        entries = sorted(self._heap, key=lambda entry: entry[1])
        np.savez(
            path,
            rank=np.array([-entry[0] for entry in entries], dtype=np.uint64),
            number=np.array([entry[1] for entry in entries], dtype=np.int64),
            size=np.array([entry[2].size for entry in entries], dtype=np.int64),
            tokens=np.concatenate([entry[2] for entry in entries]) if entries else np.array([], np.uint16),
        )

    @classmethod
    def load(cls, path: Path, target: int) -> HeldOut:
        """Read a saved selection. A damaged file raises OSError, ValueError, KeyError or BadZipFile."""
        held = cls(target)
        with np.load(path, allow_pickle=False) as saved:
            pieces = np.split(saved["tokens"], np.cumsum(saved["size"])[:-1])
            for rank, number, tokens in zip(saved["rank"], saved["number"], pieces, strict=False):
                heapq.heappush(held._heap, (-int(rank), int(number), tokens))
                held.tokens += tokens.size
        return held


def _rank(number: int, name: str) -> int:
    return int.from_bytes(blake3(f"iota/heldout/1/{number}/{name}".encode()).digest(length=8), "big")
