"""Choosing the documents that are held out for evaluation, in one pass over a stream."""

from __future__ import annotations

import heapq
from pathlib import Path

import numpy as np
import numpy.typing as npt
from blake3 import blake3

Tokens = npt.NDArray[np.unsignedinteger]

LARGEST_SHARE = 4
"""A document longer than 1/4 of what is to be held out never is, so that several kinds get in."""


class HeldOut:
    """The documents of the smallest ranks whose lengths add up to `target` tokens.

    A document's rank is the hash of its number and name, so the choice is a uniform sample spread over
    the whole source, of the same kind as what is trained on, and the same on every machine. A document
    that is pushed out by later ones goes back to the training stream.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._heap: list[tuple[int, int, Tokens]] = []  # (-rank, number, tokens): the largest rank on top
        self.tokens = 0

    @property
    def full(self) -> bool:
        return self.tokens >= self._target

    def offer(self, number: int, name: str, tokens: Tokens) -> list[tuple[int, Tokens]]:
        """Take a document or not; what is left for training: it, or those that it pushes out."""
        rank = _rank(number, name)
        if tokens.size > self._target // LARGEST_SHARE or (self.full and rank >= -self._heap[0][0]):
            return [(number, tokens)]
        heapq.heappush(self._heap, (-rank, number, tokens))
        self.tokens += tokens.size
        pushed_out = []
        while self.tokens - self._heap[0][2].size >= self._target:
            _, old_number, old = heapq.heappop(self._heap)
            self.tokens -= old.size
            pushed_out.append((old_number, old))
        return pushed_out

    def documents(self) -> list[Tokens]:
        """The chosen documents in the source's order."""
        return [tokens for _, _, tokens in sorted(self._heap, key=lambda entry: entry[1])]

    def save(self, path: Path) -> None:
        """Write the state, for `load` in a later process."""
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
        held = cls(target)
        with np.load(path, allow_pickle=False) as saved:
            pieces = np.split(saved["tokens"], np.cumsum(saved["size"])[:-1])
            for rank, number, tokens in zip(saved["rank"], saved["number"], pieces, strict=False):
                heapq.heappush(held._heap, (-int(rank), int(number), tokens))
                held.tokens += tokens.size
        return held


def _rank(number: int, name: str) -> int:
    return int.from_bytes(blake3(f"iota/heldout/1/{number}/{name}".encode()).digest(length=8), "big")
