"""Which replica each op of a step was given to, and which of its receipts are stored.

It stays until the epoch's audits are closed: receipts may come late, and who was given an op may read its
frames. So it is numbers, 8 bytes an op.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Final, NamedTuple

from iota.protocol.receipts import OpKind

_NOBODY: Final = 0xFFFF_FFFF
_FIELDS: Final = 2
"""Numbers of a planned op: member, and life with marks. A re-routed one has its attempt before them."""
_MARK_BITS: Final = 3


class Mark(IntFlag):
    """What is known of a given op."""

    NONE = 0
    FORWARD = 1
    """Its FORWARD is receipted."""
    BACKWARD = 2
    """Its BACKWARD, LOSS or EVAL is receipted."""
    NO_FORWARD = 4
    """The next stage has its activations, so that only its BACKWARD is receipted."""

    @classmethod
    def of(cls, kind: OpKind) -> Mark:
        """The mark of an op on a microbatch."""
        return cls.FORWARD if kind is OpKind.FORWARD else cls.BACKWARD


class Given(NamedTuple):
    """One op of a microbatch that was given to a replica."""

    member: int
    """Its `Member.order`."""
    life: int
    """Which of its lives in the epoch, from 0."""
    marks: Mark


@dataclass(slots=True)
class GivenOps:
    """The ops of one step, by microbatch, stage and attempt."""

    stages: int
    _planned: array[int]
    """Attempt 0 of each microbatch and stage."""
    _rerouted: dict[int, array[int]] = field(default_factory=dict)
    """By place: the later attempts."""

    @classmethod
    def of(cls, microbatches: int, stages: int) -> GivenOps:
        """A step of which nothing is given yet."""
        return cls(stages, array("I", [_NOBODY, 0] * (microbatches * stages)))

    def give(self, at: tuple[int, int], attempt: int, member: int, life: int, marks: Mark) -> None:
        """Give a microbatch at a stage, `at`, to a member's life. Each attempt is given once."""
        place, marked = self._place(at), life << _MARK_BITS | marks
        if attempt == 0:
            self._planned[_FIELDS * place : _FIELDS * (place + 1)] = array("I", [member, marked])
        else:
            self._rerouted.setdefault(place, array("I")).extend([attempt, member, marked])

    def find(self, at: tuple[int, int], attempt: int) -> Given | None:
        """Whom an attempt at (microbatch, stage) was given to; None for one that nobody was given."""
        numbers, index = self._find(at, attempt)
        if index < 0 or numbers[index - 1] == _NOBODY:
            return None
        life, marks = divmod(numbers[index], 1 << _MARK_BITS)
        return Given(numbers[index - 1], life, Mark(marks))

    def was_given(self, at: tuple[int, int], member: int) -> bool:
        """Whether a member was given any attempt at (microbatch, stage)."""
        planned = self.find(at, 0)
        later = self._rerouted.get(self._place(at), array("I"))
        return (planned is not None and planned.member == member) or member in later[1::3]

    def receipted(self, stage: int, member: int) -> int:
        """Receipts of ops at a stage that a member has stored. Linear in the microbatches."""
        count, size = 0, _FIELDS * self.stages
        planned = range(_FIELDS * stage, len(self._planned), size)
        found = [self._planned[at + 1] for at in planned if self._planned[at] == member]
        for place, later in self._rerouted.items():
            if place % self.stages == stage:
                found += [later[i + 2] for i in range(0, len(later), 3) if later[i + 1] == member]
        for marks in found:
            count += bool(marks & Mark.FORWARD) + bool(marks & Mark.BACKWARD)
        return count

    def mark(self, at: tuple[int, int], attempt: int, mark: Mark) -> None:
        """Mark an op that was given."""
        numbers, index = self._find(at, attempt)
        numbers[index] |= mark

    def _find(self, at: tuple[int, int], attempt: int) -> tuple[array[int], int]:
        """Numbers, and the index of an op's life and marks in them; -1 for none."""
        place = self._place(at)
        if not 0 <= at[1] < self.stages or not 0 <= _FIELDS * place < len(self._planned):
            return self._planned, -1
        if attempt == 0:
            return self._planned, _FIELDS * place + 1
        later = self._rerouted.get(place, array("I"))
        return later, next((i + 2 for i in range(0, len(later), 3) if later[i] == attempt), -1)

    def _place(self, at: tuple[int, int]) -> int:
        microbatch, stage = at
        return microbatch * self.stages + stage
