"""The checker of histories finds those that no order explains, and the model of the Bridge is the Bridge."""

from __future__ import annotations

import random
from typing import Any

import pytest

from iota.protocol.bridge import Delete, Lock, Set, Unlock, WriteRule
from tests.support.bridge_histories import EMPTY, Action, Held, step
from tests.support.linearizability import NEVER, Operation, is_linearizable


def register(state: int, action: tuple[str, int]) -> int | None:
    """A register: a write sets it, a read gives what it holds."""
    kind, value = action
    if kind == "write":
        return value
    return state if state == value else None


def ops(*rows: tuple[int, int, Any]) -> list[Operation[Any]]:
    return [Operation(called, returned, action) for called, returned, action in rows]


def test_reads_of_a_write_that_is_under_way_may_see_it_or_not() -> None:
    both = ops((0, 10, ("write", 1)), (1, 2, ("read", 0)), (3, 4, ("read", 1)))
    assert is_linearizable(both, 0, register)


@pytest.mark.parametrize(
    "rows",
    [
        [(0, 1, ("write", 1)), (2, 3, ("read", 0))],
        [(0, 10, ("write", 1)), (1, 2, ("read", 1)), (3, 4, ("read", 0))],
        [(0, 1, ("write", 1)), (0, 1, ("write", 2)), (2, 3, ("read", 1)), (4, 5, ("read", 2))],
        [(0, 1, ("read", 1)), (2, 3, ("write", 1))],
    ],
    ids=["stale", "back in time", "two last writes", "before it was written"],
)
def test_what_no_order_explains_is_found(rows: list[Any]) -> None:
    assert not is_linearizable(ops(*rows), 0, register)


def test_a_write_without_an_answer_may_have_happened_late_or_never() -> None:
    lost = (0, NEVER, ("write", 1))
    assert is_linearizable(ops(lost, (1, 2, ("read", 0)), (3, 4, ("read", 1))), 0, register)
    assert is_linearizable(ops(lost, (1, 2, ("read", 0))), 0, register)
    assert not is_linearizable(ops(lost, (1, 2, ("read", 1)), (3, 4, ("read", 0))), 0, register)


@pytest.mark.parametrize("seed", range(20))
def test_histories_of_a_true_register_are_linearizable_and_changed_ones_are_not(seed: int) -> None:
    chance = random.Random(seed)
    state, rows, now = 0, [], 0
    for number in range(60):
        now += chance.randrange(1, 4)
        happened = (now, now + chance.randrange(0, 3))
        early, late = happened[0] - chance.randrange(6), happened[1] + chance.randrange(6)
        if chance.random() < 0.5:
            state = number + 1
            rows.append((happened[0], early, late, ("write", state)))
        else:
            rows.append((happened[0], early, late, ("read", state)))
        now = happened[1] + 1
    assert is_linearizable(ops(*((early, late, action) for _, early, late, action in rows)), 0, register)
    wrong = [*rows, (now, now + 20, now + 21, ("read", 10**6))]
    assert not is_linearizable(ops(*((early, late, action) for _, early, late, action in wrong)), 0, register)


CAS = Set(name="g/0/c", value="x", rule=WriteRule.CAS, expected=0)


@pytest.mark.parametrize(
    "rows",
    [
        [(0, 5, Action(0, (CAS,), revision=1)), (1, 6, Action(0, (CAS,), revision=2))],
        [
            (0, 1, Action(0, (Lock(name="g/0/l", lease_s=9),), revision=1)),
            (2, 3, Action(0, (Lock(name="g/0/l", lease_s=9),), revision=2)),
        ],
        [
            (0, 1, Action(0, (CAS,), revision=1)),
            (2, 3, Action(0, (CAS.model_copy(update={"expected": 1, "value": "y"}),), revision=2)),
            (4, 5, Action(0, read="c", seen=Held("x", 1, None))),
        ],
        [
            (0, 1, Action(0, (Set(name="g/0/r", value="t"), CAS), revision=1)),
            (2, 3, Action(0, read="r", seen=None)),
        ],
        [(0, 1, Action(0, (CAS,), refused="c", seen=None))],
    ],
    ids=["two winners", "two holders", "stale read", "half a write", "refused for nothing"],
)
def test_what_a_bridge_must_not_do_is_found(rows: list[Any]) -> None:
    assert not is_linearizable(ops(*rows), EMPTY, step)


def test_what_a_bridge_does_is_explained() -> None:
    lock = Lock(name="g/0/l", lease_s=9)
    held = Set(name="g/0/l", value="mine", lease=2)
    rows = [
        (0, 5, Action(0, (CAS,), revision=1)),
        (1, 6, Action(0, (CAS,), refused="c", seen=Held("x", 1, None))),
        (7, 8, Action(0, (lock,), revision=2)),
        (9, 10, Action(0, (lock,), refused="l", seen=Held(None, 2, 2))),
        (11, 12, Action(0, (held,), revision=3)),
        (13, 14, Action(0, (Unlock(name="g/0/l", lease=2),), revision=4)),
        (15, 16, Action(0, (held,), refused="l", seen=Held("mine", 3, None))),
        (17, NEVER, Action(0, (Delete(name="g/0/c", expected=1),), unknown=True)),
        (18, 19, Action(0, read="c", seen=Held("x", 1, None))),
        (20, 21, Action(0, read="c", seen=None)),
        (22, NEVER, Action(0, (lock,), unknown=True)),
        (23, 24, Action(0, (lock,), refused="l", seen=Held("mine", 3, 6))),
    ]
    assert is_linearizable(ops(*rows), EMPTY, step)
