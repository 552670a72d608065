"""Held-out ops that end just in time, one after another."""

from __future__ import annotations

from iota.protocol.receipts import OpKind
from tests.support.coordinators import Driven
from tests.support.small_spec import small_spec

HELDOUT = 16


def test_who_ends_each_held_out_op_just_in_time_holds_a_step_up_no_longer_than_a_few_deadlines() -> None:
    driven = Driven.training(small_spec(layout={"cuts": [1, 2]}, schedule={"heldout": HELDOUT}))
    for index in range(2):
        driven.run_ops(0, index)
    began, until = driven.now, driven.coordinator.next_deadline()
    assert until is not None
    deadline = until - began
    for index in range(2, 2 + HELDOUT):
        due = driven.coordinator.next_deadline()
        assert due is not None
        driven.wait(due - driven.now - 0.01)
        driven.run_op(0, index, 0, OpKind.FORWARD)
        if driven.now - began > 3.9 * deadline:
            break
    driven.wait(0.2 * deadline)
    assert driven.state.current.closed_steps == 1
    assert driven.now - began < 5 * deadline
