"""Receipts at the door: what a liar adds, leaves out or changes is refused; what comes late is not."""

from __future__ import annotations

from typing import Any

import pytest

from iota.protocol.frames import Direction
from iota.protocol.receipts import OpKind, counted_digest
from iota.simulate.names import fake_hotkey
from orchestrator.coordinator.epoch_state import EpochState
from orchestrator.intake import Intake
from tests.support.receipt_doors import Door, a_spec
from tests.support.receipts import commit_content, frame_name, named_input, step_content


@pytest.fixture
def door() -> Door:
    return Door()


# ---- what is not an op of its own, or more than one of each -----------------------------------------


@pytest.mark.parametrize(
    ("stage", "kind", "why"),
    [(0, OpKind.LOSS, "stage 0 does not have"), (2, OpKind.FORWARD, "stage 2 does not have"),
     (2, OpKind.BACKWARD, "stage 2 does not have"), (1, OpKind.MERGE, "merge")],
)  # fmt: skip
def test_a_receipt_of_a_kind_that_its_stage_does_not_have_is_refused(
    door: Door, stage: int, kind: OpKind, why: str
) -> None:
    member = door.holder(stage)
    door.refused(why, member, door.receipt(member, kind, inputs=()))


def test_a_second_receipt_of_an_op_is_refused_in_a_batch_and_after_it(door: Door) -> None:
    member = door.holder(2)
    loss = door.receipt(member, OpKind.LOSS)
    door.refused("has a receipt", member, loss, loss)
    door.send(member, loss)
    door.refused("has a receipt", member, door.receipt(member, OpKind.LOSS, output="b" * 64))


def test_an_op_that_somebody_else_was_given_is_refused(door: Door) -> None:
    holder = door.holder(0)
    other = next(m for m in door.run.miners(0) if m is not holder)
    door.refused("not given to you", other, door.receipt(other, OpKind.FORWARD))
    door.refused("not given to you", holder, door.receipt(holder, OpKind.FORWARD, attempt=1))
    door.refused("not given to you", holder, door.receipt(holder, OpKind.FORWARD, step=2))
    door.refused("does not have", holder, door.receipt(holder, OpKind.FORWARD, microbatch=9))


def test_padding_with_receipts_of_past_epochs_ends_with_the_ops_that_were_given(door: Door) -> None:
    member = door.holder(0)
    door.run.epoch, door.run.epochs = 1, {1: EpochState(1)}
    for _ in range(member.given_receipts):
        door.send(member, door.receipt(member, OpKind.FORWARD, epoch=0))
    door.refused("one more than", member, door.receipt(member, OpKind.FORWARD, epoch=0))


# ---- held-out microbatches --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "kind", "changes", "why"),
    [
        (2, OpKind.EVAL, {"microbatch": 0}, "its microbatch is not held out"),
        (2, OpKind.LOSS, {"microbatch": 4}, "held-out microbatch is not trained on"),
        (1, OpKind.BACKWARD, {"microbatch": 4}, "held-out microbatch is not trained on"),
        (1, OpKind.EVAL, {"microbatch": 4}, "stage 1 does not have"),
        (2, OpKind.EVAL, {"microbatch": 6, "inputs": ()}, "microbatch that the run does not have"),
        (2, OpKind.EVAL, {"microbatch": 4, "step": 1, "inputs": ()}, "microbatch that the run does not have"),
        (2, OpKind.EVAL, {"microbatch": 4, "loss": None}, "of an EVAL and names none"),
        (2, OpKind.EVAL, {"microbatch": 4, "loss": -1.0}, "names a loss of -1"),
        (2, OpKind.EVAL, {"microbatch": 4, "version": 1}, "names weight version 1"),
        (1, OpKind.FORWARD, {"microbatch": 4, "loss": 1.0}, "names a loss"),
    ],
)
def test_receipts_of_what_held_out_microbatches_do_not_have_are_refused(
    stage: int, kind: OpKind, changes: dict[str, Any], why: str
) -> None:
    door = Door(a_spec(heldout=2))
    member = door.holder(stage, 4)
    door.refused(why, member, door.receipt(member, kind, **changes))


def test_a_held_out_microbatch_is_receipted_once_by_those_who_were_given_it() -> None:
    door = Door(a_spec(heldout=2))
    for stage, kind in enumerate((OpKind.FORWARD, OpKind.FORWARD, OpKind.EVAL)):
        member, other = door.holder(stage, 4), door.holder(stage, 5)
        assert member is not other
        door.refused("not given to you", other, door.receipt(other, kind, 4))
        door.send(member, door.receipt(member, kind, 4))
        door.refused("has a receipt", member, door.receipt(member, kind, 4))
    assert door.run.current.heldout == {4: (0, 0, 0)}


# ---- what is left out -------------------------------------------------------------------------------


def test_a_backward_whose_forward_is_kept_back_is_refused(door: Door) -> None:
    member = door.holder(1)
    forward, backward = door.receipt(member, OpKind.FORWARD), door.receipt(member, OpKind.BACKWARD)
    door.refused("FORWARD has no receipt", member, backward)
    door.send(member, forward, backward)


@pytest.mark.parametrize("receipted", ["nothing", "the base", "the STEP"])
def test_a_pseudo_gradient_without_the_commitment_to_the_last_version_is_not_merged(receipted: str) -> None:
    door = Door(a_spec(stages=1, replicas=2, steps=1))
    door.close_step()
    liar, honest = door.run.miners(0)
    door.driven.give(liar, honest)
    door.send(honest, door.commit(honest, 0), door.step(honest, 0), door.commit(honest, 1))
    if receipted != "nothing":
        door.send(liar, door.commit(liar, 0))
    if receipted == "the STEP":
        door.send(liar, door.step(liar, 0))
    merge = door.run.current.merges[0]
    assert (set(merge.deltas), merge.fixed) == ({honest.hotkey}, False)
    door.driven.wait(700)
    assert merge.fixed
    assert set(merge.deltas) == {honest.hotkey}
    assert any(liar.hotkey in said for said in door.run.incidents.named)


def test_a_pseudo_gradient_that_comes_before_its_last_receipts_counts_with_them() -> None:
    door = Door(a_spec(stages=1, replicas=2, steps=1))
    door.close_step()
    for member in door.run.miners(0):
        door.driven.give(member)
        door.send(member, door.step(member, 0))
        door.send(member, door.commit(member, 0), door.commit(member, 1))
    assert set(door.run.current.merges[0].deltas) == {m.hotkey for m in door.run.miners(0)}


def test_steps_are_receipted_in_order_once_and_not_before_they_are_closed(door: Door) -> None:
    member = door.holder(1)
    door.refused("not closed", member, door.receipt(member, OpKind.STEP))
    door.close_step()
    door.refused("the next one is 0", member, door.receipt(member, OpKind.STEP, step=1))
    door.send(member, door.receipt(member, OpKind.STEP))
    door.refused("the next one is 1", member, door.receipt(member, OpKind.STEP))


# ---- what is changed --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"device": "cuda/another"}, "another device"),
        ({"version": 1}, "weight version"),
        ({"tokens": 5}, "5 tokens"),
        ({"update": step_content()["update"]}, "only a STEP or a COMMIT has"),
        ({"commitment": commit_content()["commitment"]}, "only a STEP or a COMMIT has"),
        ({"started": 1e300, "ended": 1e300}, "clock"),
        ({"started": 1.0, "ended": 1e9}, "clock"),
        ({"inputs": ()}, "other inputs"),
    ],
    ids=str,
)
def test_a_forward_that_its_op_cannot_give_is_refused(door: Door, changes: dict[str, Any], why: str) -> None:
    member = door.holder(1)
    door.refused(why, member, door.receipt(member, OpKind.FORWARD, **changes))
    door.send(member, door.receipt(member, OpKind.FORWARD))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"stage": 2}, "other inputs"),
        ({"direction": Direction.BACKWARD}, "other inputs"),
        ({"microbatch": 1}, "another microbatch"),
        ({"step": 1}, "another microbatch"),
        ({"epoch": 1}, "another microbatch"),
        ({"attempt": 1}, "no part in it"),
    ],
    ids=str,
)
def test_an_input_of_another_name_is_refused(door: Door, fields: dict[str, Any], why: str) -> None:
    member = door.holder(1)
    name = frame_name(0, Direction.FORWARD).model_copy(update=fields)
    named = named_input(door.spec, name, door.holder(0).hotkey, member.hotkey)
    door.refused(why, member, door.receipt(member, OpKind.FORWARD, inputs=(named,)))


def test_an_input_of_a_stranger_of_another_run_or_of_no_form_is_refused(door: Door) -> None:
    member, name = door.holder(1), frame_name(0, Direction.FORWARD)
    stranger = named_input(door.spec, name, fake_hotkey(40), member.hotkey)
    elsewhere = named_input(a_spec(steps=2), name, door.holder(0).hotkey, member.hotkey)
    for named, why in ((stranger, "no part in it"), (elsewhere, "of this run"), (None, "no frame")):
        given = named or stranger.model_copy(update={"header": "{}"})
        door.refused(why, member, door.receipt(member, OpKind.FORWARD, inputs=(given,)))


def test_the_door_refuses_an_input_for_another_receiver_unless_its_sender_signed_it(door: Door) -> None:
    """After a re-route a frame is for who had the work before; and a sender may write whom it likes."""
    member, sender = door.holder(1), door.holder(0)
    named = named_input(door.spec, frame_name(0, Direction.FORWARD), sender.hotkey, fake_hotkey(40))
    receipt = door.receipt(member, OpKind.FORWARD, inputs=(named,))
    as_signed, text = door.intake, named.header.encode()
    door.intake = Intake(door.driven.coordinator, verify=lambda message, *by: text not in message)
    door.refused("receiver", member, receipt)
    door.intake = as_signed
    door.send(member, receipt)


def test_a_step_says_what_it_applied_and_nothing_of_a_microbatch(door: Door) -> None:
    door.close_step()
    member = door.holder(0, step=1)
    commitment = commit_content()["commitment"]
    for changes in (
        {"update": None}, {"tokens": 4}, {"output": "b" * 64}, {"attempt": 1}, {"commitment": commitment},
    ):  # fmt: skip
        door.refused("STEP", member, door.receipt(member, OpKind.STEP, **changes))


@pytest.mark.parametrize(
    ("applied", "why"),
    [
        ({"counted": counted_digest([(0, 0)])}, "counts the list"),
        ({"counted": counted_digest([])}, "counts the list"),
        ({"learning_rate": 5e-5}, "has the learning rate"),
    ],
    ids=str,
)
def test_a_step_that_applied_another_list_or_rate_than_its_close_tells_is_refused(
    door: Door, applied: dict[str, Any], why: str
) -> None:
    member = door.holder(1)
    door.close_step()
    update = door.applied(member, 0)
    other = update.model_copy(update=applied)
    door.refused(why, member, door.receipt(member, OpKind.STEP, update=other))
    door.send(member, door.receipt(member, OpKind.STEP, update=update))
