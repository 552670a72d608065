"""Receipts at the door: what a liar adds, leaves out or changes is refused; what comes late is not."""

from __future__ import annotations

from typing import Any

import pytest

from iota.protocol.messages import (
    PROTOCOL_VERSION,
    Capabilities,
    Delta,
    Direction,
    ExchangeRequest,
    JoinRequest,
    Ready,
    Role,
    StoredObject,
)
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import OpKind, Receipt, ReceiptBatch
from iota.simulate.names import fake_hotkey
from iota.spec import Pipeline, RunSpec
from orchestrator.coordinator import Joined
from orchestrator.coordinator.epoch_state import EpochState
from orchestrator.coordinator.member import Member
from orchestrator.intake import Intake
from tests.support.coordinators import Driven
from tests.support.receipts import content, frame_name, named_input
from tests.support.virtual_runs import tiny_spec

DEVICE = "test"


def a_spec(**changes: Any) -> RunSpec:
    given = {"stages": 3, "replicas": 2, "epochs": 2, "steps": 3, "microbatches": 4, "credit": 2}
    return tiny_spec(**{"pipeline": Pipeline.DELAYED, **given, **changes})


class Door:
    """An intake before a run in training. Members say true things unless a test changes them."""

    def __init__(self, spec: RunSpec | None = None) -> None:
        self.driven = Driven.training(spec or a_spec())
        self.intake = Intake(self.driven.coordinator, verify=lambda message, signature, hotkey: True)
        self.run, self.spec = self.driven.state, self.driven.state.spec

    def holder(self, stage: int, microbatch: int = 0, step: int = 0) -> Member:
        return self.run.members[self.run.current.steps[step].microbatches[microbatch].places[stage].miner]

    def receipt(self, member: Member, kind: OpKind, microbatch: int = 0, **changes: Any) -> Receipt:
        """The next receipt of `member`, of an op that reads the frames of attempt 0."""
        given: dict[str, Any] = {
            "seq": member.receipts + 1, "previous": member.head, "epoch": self.run.epoch, "step": 0,
            "microbatch": 0 if kind is OpKind.STEP else microbatch, "stage": member.stage, "kind": kind,
            "version": 0, "started": self.driven.now, "ended": self.driven.now, "device": DEVICE,
            **content(kind, self.spec.data.tokens),
        } | changes  # fmt: skip
        if "inputs" not in given and kind is not OpKind.STEP:
            given["inputs"] = self.inputs(member, kind, microbatch, given["step"])
        return Receipt.model_validate(given)

    def inputs(self, member: Member, kind: OpKind, microbatch: int, step: int = 0) -> tuple[Any, ...]:
        stages = [(member.stage - 1, Direction.FORWARD)] if member.stage else []
        stages += [(member.stage + 1, Direction.BACKWARD)] if kind is OpKind.BACKWARD else []
        return tuple(
            named_input(
                self.spec,
                frame_name(stage, direction, microbatch, epoch=self.run.epoch, step=step),
                self.holder(stage, microbatch, step).hotkey,
                member.hotkey,
            )
            for stage, direction in stages
        )

    def send(self, member: Member, *receipts: Receipt) -> None:
        """One batch. Raises Problem where it is refused."""
        chained: list[Receipt] = []
        for receipt in receipts:
            if chained:
                at = {"seq": chained[-1].seq + 1, "previous": chained[-1].content_digest()}
                receipt = receipt.model_copy(update=at)
            chained.append(receipt)
        batch = ReceiptBatch(receipts=tuple(chained), signature="0" * 128)
        said = self.intake.exchange(
            member.hotkey, ExchangeRequest(cursor=0, receipts=batch), at=self.driven.now
        )
        assert said is not None
        self.driven.coordinator.apply(said)
        assert not self.run.incidents.internal

    def refused(self, why: str, member: Member, *receipts: Receipt) -> None:
        with pytest.raises(Problem, match=why) as caught:
            self.send(member, *receipts)
        assert caught.value.type is ProblemType.BAD_RECEIPTS

    def rejoin(
        self, member: Member, *, receipts: int | None = None, ready: bool = True, device: str = DEVICE
    ) -> None:
        """It has lost its base, and keeps its receipts; then it holds the base again."""
        request = JoinRequest(
            role=Role.MINER,
            versions=(PROTOCOL_VERSION,),
            capabilities=Capabilities(device=device, memory=1, flops=1.0),
            receipts=member.receipts if receipts is None else receipts,
        )
        self.driven.coordinator.apply(Joined(at=self.driven.now, hotkey=member.hotkey, request=request))
        if ready:
            self.driven.say(member, reports=[Ready(epoch=0, digest=f"{member.stage:064x}")])

    def close_step(self) -> None:
        """Every microbatch of the first open step ends; its STEPs are not receipted."""
        step = self.run.current.closed_steps
        for index in range(self.spec.schedule.microbatches):
            for stage in range(self.run.stages - 1):
                self.driven.run_op(step, index, stage, OpKind.FORWARD)
            self.driven.run_op(step, index, self.run.stages - 1, OpKind.LOSS)
            for stage in reversed(range(self.run.stages - 1)):
                self.driven.run_op(step, index, stage, OpKind.BACKWARD)
        assert self.run.current.closed_steps == step + 1


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
    door.run.epochs[1] = EpochState(1)
    door.run.epoch = 1
    for _ in range(member.given_receipts):
        door.send(member, door.receipt(member, OpKind.FORWARD, epoch=0))
    door.refused("one more than", member, door.receipt(member, OpKind.FORWARD, epoch=0))


# ---- what is left out -------------------------------------------------------------------------------


def test_a_backward_whose_forward_is_kept_back_is_refused(door: Door) -> None:
    member = door.holder(1)
    forward, backward = door.receipt(member, OpKind.FORWARD), door.receipt(member, OpKind.BACKWARD)
    door.refused("FORWARD has no receipt", member, backward)
    door.send(member, forward, backward)


def test_a_pseudo_gradient_without_the_last_step_receipt_is_not_merged() -> None:
    door = Door(a_spec(stages=1, replicas=2, steps=1))
    door.close_step()
    liar, honest = door.run.miners(0)
    sizes = door.run.part_bytes[0]
    parts = tuple(StoredObject(key=f"d/{n}", digest="1" * 64, size=size) for n, size in enumerate(sizes))
    for member in (liar, honest):
        door.driven.say(member, reports=[Delta(epoch=0, parts=parts)])
    door.send(honest, door.receipt(honest, OpKind.STEP))
    merge = door.run.current.merges[0]
    assert (set(merge.deltas), merge.fixed) == ({honest.hotkey}, False)
    door.driven.wait(700)
    assert merge.fixed
    assert set(merge.deltas) == {honest.hotkey}
    assert any(liar.hotkey in said for said in door.run.incidents.named)


def test_a_pseudo_gradient_that_comes_before_its_step_receipt_counts_with_it() -> None:
    door = Door(a_spec(stages=1, replicas=2, steps=1))
    door.close_step()
    sizes = door.run.part_bytes[0]
    parts = tuple(StoredObject(key=f"d/{n}", digest="1" * 64, size=size) for n, size in enumerate(sizes))
    for member in door.run.miners(0):
        door.driven.say(member, reports=[Delta(epoch=0, parts=parts)])
        door.send(member, door.receipt(member, OpKind.STEP))
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
        ({"sketch": (0.0,) * 15}, "sketch"),
        ({"state": content(OpKind.STEP, 4)["state"]}, "only a STEP has"),
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


def test_a_step_has_a_state_and_nothing_of_a_microbatch(door: Door) -> None:
    door.close_step()
    member = door.holder(0, step=1)
    for changes in ({"state": None}, {"tokens": 4}, {"output": "b" * 64}, {"attempt": 1}):
        door.refused("STEP", member, door.receipt(member, OpKind.STEP, **changes))


# ---- what comes late --------------------------------------------------------------------------------


def test_an_op_that_was_taken_away_is_stored_when_its_step_is_closed(door: Door) -> None:
    late = door.holder(0)
    forward = door.receipt(late, OpKind.FORWARD)
    door.driven.lose(late)
    assert door.holder(0) is not late
    late_before = late.receipts
    door.close_step()
    door.send(late, forward)
    assert late.receipts == late_before + 1
    door.refused("has a receipt", late, door.receipt(late, OpKind.FORWARD, inputs=()))


def test_receipts_of_a_lost_life_are_stored_and_count_in_no_sum_of_the_next(door: Door) -> None:
    """The miner kept its receipts, lost its base, and sends them after it has joined anew."""
    member = door.holder(0)
    forward = door.receipt(member, OpKind.FORWARD)
    backward = door.receipt(member, OpKind.BACKWARD)
    for other in door.run.miners(0):
        if other is not member:
            door.driven.lose(other)
    door.rejoin(member, receipts=2)
    assert [life.joined for life in door.run.current.lives[member.hotkey]] == [0, 0]
    door.send(member, forward, backward)
    assert member.receipts == 2
    assert not door.run.current.steps[0].order.get(member.hotkey)
    assert not door.run.current.steps[0].microbatches[0].places[0].counted


def test_a_receipt_of_an_earlier_life_after_one_of_the_present_is_refused(door: Door) -> None:
    member = door.holder(0)
    old = door.receipt(member, OpKind.FORWARD)
    for other in door.run.miners(0):
        if other is not member:
            door.driven.lose(other)
    door.rejoin(member)
    place = door.run.current.steps[0].microbatches[0].places[0]
    door.send(member, door.receipt(member, OpKind.FORWARD, attempt=place.attempt))
    late = old.model_copy(update={"seq": member.receipts + 1, "previous": member.head})
    door.refused("an earlier life", member, late)


def test_receipts_go_on_after_the_seal_and_after_the_audits_of_the_last_epoch() -> None:
    door = Door(a_spec(steps=3, stages=1, pipeline=Pipeline.SYNC))
    late, other = door.run.miners(0)
    for step in range(3):
        door.close_step()
        door.send(other, door.receipt(other, OpKind.STEP, step=step, version=step))
    sizes = door.run.part_bytes[0]
    parts = tuple(StoredObject(key=f"d/{n}", digest="1" * 64, size=size) for n, size in enumerate(sizes))
    door.driven.say(other, reports=[Delta(epoch=0, parts=parts)])
    door.driven.wait(700)
    assert door.run.current.seal is not None
    for step in range(2):  # one by one, and the first is not recorded as done
        door.send(late, door.receipt(late, OpKind.STEP, step=step, version=step))
    door.run.epochs[0] = EpochState(0, closed_steps=3, audits_closed=True)
    door.send(late, door.receipt(late, OpKind.STEP, step=2, version=2))


def test_another_device_class_begins_a_new_life(door: Door) -> None:
    member = door.holder(0)
    door.rejoin(member, device="another")
    assert not member.resume
    assert [life.device for life in door.run.current.lives[member.hotkey]] == [DEVICE, "another"]
