"""Whether a history of concurrent operations is linearizable: the search of Wing and Gong (1993).

Each operation must seem to happen at one moment between its call and its return. The search takes operations
in an order that agrees with that, as long as the model gives the results that were seen, and goes back where
none fits. What was tried is remembered as (operations taken, state), as in Lowe's variant (2017), which
porcupine has. Histories of independent objects are checked one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

State = TypeVar("State", bound=Hashable)
Action = TypeVar("Action")
NEVER = 2**63
"""The return of an operation whose caller got no answer: it may have happened at any time, or not at all."""


@dataclass(frozen=True)
class Operation(Generic[Action]):
    """One call, from `called` to `returned` by one clock, with what was seen of it."""

    called: int
    returned: int
    action: Action


@dataclass
class _Event:
    """The call or the return of an operation, in a list that is linked both ways."""

    number: int
    is_call: bool
    before: _Event | None = None
    after: _Event | None = None
    matching: _Event | None = None

    def unlink(self) -> None:
        for event in (self, self.matching):
            assert event is not None
            assert event.before is not None
            event.before.after = event.after
            if event.after is not None:
                event.after.before = event.before

    def relink(self) -> None:
        for event in (self.matching, self):
            assert event is not None
            assert event.before is not None
            event.before.after = event
            if event.after is not None:
                event.after.before = event


def is_linearizable(
    operations: Sequence[Operation[Action]], initial: State, step: Callable[[State, Action], State | None]
) -> bool:
    """Whether an order of the operations explains what was seen of them.

    `step` gives the state after an action; None where the model would have given another result. An action
    without an answer is possible in every state, and may change nothing.
    """
    head = _linked(operations)
    state, taken = initial, 0
    tried: set[tuple[int, State]] = set()
    trail: list[tuple[_Event, State]] = []
    event = head.after
    while head.after is not None:
        assert event is not None
        if event.is_call:
            after = step(state, operations[event.number].action)
            place = (taken | 1 << event.number, after)
            if after is not None and place not in tried:
                tried.add(place)  # type: ignore[arg-type]
                trail.append((event, state))
                taken, state = place[0], after
                event.unlink()
                event = head.after
            else:
                event = event.after
        else:  # an operation ended that could not be taken before: go back
            if not trail:
                return False
            event, state = trail.pop()
            taken &= ~(1 << event.number)
            event.relink()
            event = event.after
    return True


def _linked(operations: Sequence[Operation[Action]]) -> _Event:
    """A head, and after it calls and returns in order of time. Calls are first where times are equal."""
    times: list[tuple[int, int, _Event]] = []
    for number, operation in enumerate(operations):
        call, end = _Event(number, True), _Event(number, False)
        call.matching, end.matching = end, call
        times += [(operation.called, 0, call), (operation.returned, 1, end)]
    head = last = _Event(-1, False)
    for _, _, event in sorted(times, key=lambda each: each[:2]):
        last.after, event.before = event, last
        last = event
    return head
