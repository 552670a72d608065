"""Selection of the text that is held out for evaluation, in one pass over a stream."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from blake3 import blake3

Tokens = npt.NDArray[np.unsignedinteger]

SHARE: Final = 0.05
"""Of the data, unless a number of tokens is asked for."""
MAX_TOKENS: Final = 1 << 20
"""Most tokens held out by default: 1,024 sequences of 1,024."""
MIN_TOKENS: Final = 1 << 12
"""Least tokens held out by default, however little data there is."""


@dataclass(frozen=True)
class Target:
    """How many tokens are held out: `share` of all, but at least `least` and at most `most`."""

    least: int = MIN_TOKENS
    most: int = MAX_TOKENS
    share: float = SHARE

    @classmethod
    def exactly(cls, tokens: int) -> Target:
        """The target of `tokens`, whatever the data's size. Raises `ValueError` unless it is positive."""
        if tokens < 1:
            raise ValueError(f"{tokens} tokens cannot be held out: give a positive number")
        return cls(tokens, tokens, 1.0)

    def of(self, total: int) -> int:
        """Tokens to hold out of `total`."""
        return max(self.least, min(self.most, round(self.share * total)))


DEFAULT_TARGET: Final = Target()


@dataclass
class Held:
    """A text that is held out: its tokens, and how often the source has it so far."""

    tokens: Tokens
    copies: int = 1


def rank(text: str) -> bytes:
    """The rank of a text, 32 bytes. It depends on the text alone, so equal texts are held out together."""
    return blake3(text.encode(), derive_key_context="iota heldout 2").digest()


class HeldOut:
    """The texts (documents, or parts of long ones) of lowest rank, so many that the target is met.

    The selection is a uniform sample of the whole source: every rank below `share` of all ranks, up to
    `most` tokens, but at least `least`. It depends on the set of texts alone, not on their order, since a
    text that was let go is never taken back. Copies of what is held out are kept out of training.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._bound = int(target.share * 2**256)
        self._held: dict[int, Held] = {}
        self._heap: list[int] = []
        """Negated ranks: the largest rank on top."""
        self.tokens = 0

    @property
    def duplicates(self) -> int:
        """Texts that were kept out of training because an equal one is held out."""
        return sum(held.copies - 1 for held in self._held.values())

    def offer(self, text_rank: bytes, tokens: Tokens) -> list[tuple[bytes, Held]]:
        """Offer a text. Returns those to train on, with their ranks: this one, or the ones it displaces.

        `tokens` has shape (length,).
        """
        key = int.from_bytes(text_rank, "big")
        if key in self._held:
            self._held[key].copies += 1
            return []
        self._add(key, Held(tokens))
        displaced = []
        while self._spare(-self._heap[0]):
            old = -heapq.heappop(self._heap)
            held = self._held.pop(old)
            self.tokens -= held.tokens.size
            displaced.append((old.to_bytes(32, "big"), held))
        return displaced

    def documents(self) -> list[Tokens]:
        """Tokens of the selected texts by rank, so that the first ones are a sample of all."""
        return [held.tokens for _, held in sorted(self._held.items())]

    def trim(self, total: int) -> Tokens | None:
        """Cut the text of largest rank so that no more than the target of `total` tokens is held out.

        Returns what was cut off, to be trained on.
        """
        spare = self.tokens - self._target.of(total)
        last = self._held[-self._heap[0]] if self._heap else None
        if last is None or not 0 < spare < last.tokens.size:
            return None
        last.tokens, rest = np.split(last.tokens, [-spare])
        self.tokens -= spare
        return rest

    def _add(self, key: int, held: Held) -> None:
        self._held[key] = held
        heapq.heappush(self._heap, -key)
        self.tokens += held.tokens.size

    def _spare(self, key: int) -> bool:
        """Whether the target is met without the text of largest rank, `key`."""
        rest = self.tokens - self._held[key].tokens.size
        return rest >= self._target.most or (rest >= self._target.least and key >= self._bound)

    def save(self, path: Path) -> None:
        """Write the selection to an .npz file that `load` reads."""
        entries = sorted(self._held.items())
        np.savez(
            path,
            rank=np.frombuffer(b"".join(key.to_bytes(32, "big") for key, _ in entries), np.uint8),
            copies=np.array([held.copies for _, held in entries], dtype=np.int64),
            size=np.array([held.tokens.size for _, held in entries], dtype=np.int64),
            tokens=np.concatenate([held.tokens for _, held in entries] or [np.array([], np.uint16)]),
        )

    @classmethod
    def load(cls, path: Path, target: Target) -> HeldOut:
        """Read a saved selection. A damaged file raises OSError, ValueError, KeyError or BadZipFile."""
        found = cls(target)
        with np.load(path, allow_pickle=False) as saved:
            pieces = np.split(saved["tokens"], np.cumsum(saved["size"])[:-1])
            ranks = saved["rank"].reshape(-1, 32)
            for key, copies, tokens in zip(ranks, saved["copies"], pieces, strict=False):
                found._add(int.from_bytes(key.tobytes(), "big"), Held(tokens, int(copies)))
        return found
