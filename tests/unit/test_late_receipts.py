"""Receipts that come late: of work that was taken away, of an earlier life, after the merge or the seal."""

from __future__ import annotations

import pytest

from iota.protocol.frames import StoredObject
from iota.protocol.merges import merge_output
from iota.protocol.messages import Delta
from iota.protocol.receipts import OpKind, counted_digest
from iota.spec import Pipeline
from orchestrator.coordinator.epoch_state import EpochState, counted_pairs
from orchestrator.coordinator.member import Member
from tests.support.receipt_doors import DEVICE, Door, a_spec


@pytest.fixture
def door() -> Door:
    return Door()


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


@pytest.mark.parametrize("batches", [1, 2])
def test_a_merge_begins_no_life_so_that_an_earlier_one_may_follow_it(batches: int) -> None:
    """Else a miner's own order of receipts would break the record of everybody."""
    spec = a_spec(stages=1, steps=1, pipeline=Pipeline.SYNC)
    for block in range(20):
        door = Door(spec)
        member = door.holder(0)
        kept = door.receipt(member, OpKind.LOSS)
        door.rejoin(member)
        assert len(door.run.current.lives[member.hotkey]) == 2
        door.close_step()
        other = next(m for m in door.run.miners(0) if m is not member)
        door.send(other, door.commit(other, 0), door.step(other, 0), door.commit(other, 1))
        door.driven.give(other)
        door.driven.wait(700)
        door.driven.draw_mergers(f"{block:064x}")
        if member.hotkey in door.run.current.merges[0].parts[0].mergers:
            break
    output = merge_output(f"{7:064x}", {})
    merge = door.driven.receipt(member, OpKind.MERGE, 0, 0).model_copy(update={"output": output})
    if batches == 1:
        door.send(member, merge, kept)
    else:
        door.send(member, merge)
        door.send(member, kept.model_copy(update={"seq": 2, "previous": member.head}))
    assert member.receipts == 2
    door.driven.merge(other, 0)
    door.driven.merge(member, 0, signed=False)
    [mine] = [m for m in door.driven.seal().miners if m.hotkey == member.hotkey]
    assert (mine.first_receipt, mine.last_receipt) == (1, 2)
    assert [life.first_receipt for life in mine.lives] == [1, 3]


def merged(late: int) -> tuple[Door, Member]:
    """A door whose epoch 0 is merged and not sealed, and the miner that has `late` STEPs to receipt.

    It has committed to its base alone.
    """
    door = Door(a_spec(steps=3, stages=1, pipeline=Pipeline.SYNC))
    member, other = door.run.miners(0)
    for each in (member, other):
        door.send(each, door.commit(each, 0))
    for step in range(3):
        door.close_step()
        door.send(other, door.step(other, step))
        if step < 3 - late:
            door.send(member, door.step(member, step))
    door.send(other, door.commit(other, 3))
    sizes = door.run.part_bytes[0]
    parts = tuple(StoredObject(key=f"d/{n}", digest="1" * 64, size=size) for n, size in enumerate(sizes))
    door.driven.say(other, reports=[Delta(epoch=0, parts=parts)])
    door.driven.wait(700)
    door.driven.merge_all()
    door.driven.next_base()
    assert (door.run.epoch, door.run.epochs[0].seal) == (1, None)
    return door, member


def test_receipts_go_on_after_the_seal_and_after_the_audits_of_the_last_epoch() -> None:
    door, late = merged(late=3)
    door.driven.wait(1, block=1)
    assert door.run.epochs[0].seal is not None
    for step in range(2):  # one by one, and the first is not recorded as done
        door.send(late, door.step(late, step))
    step_2, last = door.step(late, 2), door.commit(late, 3, epoch=0)
    door.run.epochs[0] = EpochState(0, closed_steps=3, audits_closed=True)
    door.send(late, step_2, last)


def test_receipts_between_the_merge_and_the_seal_are_checked_as_before_it() -> None:
    """They are sealed, also where the next epoch has begun."""
    door, late = merged(late=2)
    step_1 = door.step(late, 1)
    for changes, why in (
        ({"step": 2, "version": 2}, "the next one is 1"),
        ({"version": 0}, "weight version"),
    ):
        door.refused(why, late, step_1.model_copy(update=changes))
    assert step_1.update is not None
    none = counted_digest([])
    other = {"update": step_1.update.model_copy(update={"counted": none}), "output": none}
    door.refused("counts the list", late, step_1.model_copy(update=other))
    door.refused("STEP that makes it", late, step_1, door.commit(late, 3, epoch=0))
    again = door.receipt(late, OpKind.LOSS, epoch=0, microbatch=late_op(door, late), inputs=())
    door.refused("has a receipt", late, again)
    door.send(late, step_1)
    before = late.receipts
    door.driven.wait(1, block=1)
    record = door.driven.record(0)
    assert {m.hotkey: m.last_receipt for m in record.miners}[late.hotkey] == before


def late_op(door: Door, member: Member) -> int:
    """A microbatch of step 0 that the member ran."""
    return counted_pairs(door.run.epochs[0].steps[0].order[member.hotkey])[0][0]


def test_another_device_class_begins_a_new_life(door: Door) -> None:
    member = door.holder(0)
    door.rejoin(member, device="another")
    assert not member.resume
    assert [life.device for life in door.run.current.lives[member.hotkey]] == [DEVICE, "another"]
