"""Accusations of other validators in one epoch: which of them are re-executed, and in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from blake3 import blake3

from iota.protocol.events import Accusation
from iota.protocol.messages import CHARGING, AuditKind
from validator.core.tasks import task_name

MAX_EXAMINED: Final = 8
"""Accusations of one author and epoch that are re-executed. The others count for nothing here."""

_UNDRAWN: Final = (AuditKind.RECORDS, AuditKind.WORD, AuditKind.DELTA)


@dataclass
class Accusations:
    """What this validator was told of an epoch."""

    _heard: int = 0
    _open: list[Accusation] = field(default_factory=list)
    _examined: Counter[str] = field(default_factory=Counter)
    _refuted: set[str] = field(default_factory=set)

    def add(self, accusation: Accusation, *, counts: bool) -> None:
        """Take an accusation; it is examined if it `counts`.

        Some kinds need no examination, since every validator does all audits of them in every epoch.
        """
        self._heard += 1
        if counts and accusation.verdict.audit not in _UNDRAWN:
            self._open.append(accusation)

    @property
    def settled(self) -> int:
        """Accusations that were examined or passed over."""
        return self._heard - len(self._open)

    @property
    def any_open(self) -> bool:
        """Whether one is still to be looked at."""
        return bool(self._open)

    def to_examine(self, seed: bytes) -> Iterator[Accusation]:
        """Those to re-execute, until none is left; more may come meanwhile.

        Args:
            seed: 32 bytes that no author knew when it accused; they order each author's accusations.
        """
        while self._open:
            self._open.sort(key=lambda accusation: _place(seed, accusation), reverse=True)
            accusation = self._open.pop()
            author = accusation.validator
            if author not in self._refuted and self._examined[author] < MAX_EXAMINED:
                self._examined[author] += 1
                yield accusation

    def refute(self, author: str) -> None:
        """Look at no further accusation of an author that accused an honest miner."""
        self._refuted.add(author)

    def pass_over(self) -> None:
        """Examine none of those that are left: their evidence is gone, or the time is over."""
        self._open.clear()


def task_of(accusation: Accusation) -> tuple[str, str]:
    """(the miner that is judged, the name of the task)."""
    verdict = accusation.verdict
    return verdict.miner, task_name(verdict.audit, verdict.seq)


def _place(seed: bytes, accusation: Accusation) -> tuple[bool, bytes]:
    """Those that cost a miner something come first, else in an order that no author knew."""
    verdict = accusation.verdict
    drawn = blake3(seed + accusation.validator.encode() + verdict.canonical()).digest()
    return verdict.outcome not in CHARGING, drawn
