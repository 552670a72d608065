"""COMMITs at the door: each committed version of a life once, in order, after its STEP, in its form."""

from __future__ import annotations

from typing import Any

import pytest

from iota.spec import Pipeline
from orchestrator.coordinator.epoch_state import EpochState
from orchestrator.coordinator.member import Member
from tests.support.receipt_doors import Door, a_spec
from tests.support.receipts import commit_content, step_content


@pytest.fixture
def door() -> Door:
    """Every other version of an epoch's four steps is committed: 0, 2 and 4."""
    return Door(a_spec(steps=4, commit_every=2))


def apply_steps(door: Door, member: Member, count: int) -> None:
    """So many steps are closed, and the member has receipted its STEPs."""
    for step in range(count):
        door.close_step()
        door.send(member, door.step(member, step))


def test_a_miner_commits_to_its_base_before_any_op(door: Door) -> None:
    member = door.holder(1)
    door.send(member, door.commit(member, 0))
    assert door.run.current.lives[member.hotkey][-1].committed == 0


def test_a_version_that_is_not_committed_or_comes_out_of_order_is_refused(door: Door) -> None:
    member = door.holder(1)
    apply_steps(door, member, 3)
    door.refused("commits to version 1, and next is 0", member, door.commit(member, 1))
    door.refused("commits to version 2, and next is 0", member, door.commit(member, 2))
    door.send(member, door.commit(member, 0))
    door.refused("commits to version 3, and next is 2", member, door.commit(member, 3))
    door.send(member, door.commit(member, 2))
    door.refused("commits to version 5|does not have", member, door.commit(member, 5))


@pytest.mark.parametrize("apart", [False, True])
def test_a_version_is_committed_once(door: Door, apart: bool) -> None:
    member = door.holder(1)
    first = door.commit(member, 0)
    if apart:
        door.send(member, first)
        door.refused("next is 2", member, door.commit(member, 0))
    else:
        door.refused("next is 2", member, first, first)


def test_a_version_is_committed_after_the_step_that_makes_it(door: Door) -> None:
    member = door.holder(1)
    door.close_step()
    door.close_step()
    base, early = door.commit(member, 0), door.commit(member, 2)
    door.refused("STEP that makes it", member, base, door.step(member, 0), early, door.step(member, 1))
    door.send(member, base, door.step(member, 0), door.step(member, 1), early)


def test_commits_may_come_later_than_what_follows_their_versions(door: Door) -> None:
    """They are hashed beside the ops."""
    member = door.holder(1)
    apply_steps(door, member, 4)
    door.send(member, door.commit(member, 0), door.commit(member, 2), door.commit(member, 4))
    door.refused("all are committed", member, door.commit(member, 4))


def test_the_last_version_is_committed_wherever_it_lies() -> None:
    door = Door(a_spec(steps=3, commit_every=2))
    member = door.holder(1)
    apply_steps(door, member, 3)
    door.send(member, door.commit(member, 0), door.commit(member, 2), door.commit(member, 3))


@pytest.mark.parametrize("pipeline", list(Pipeline))
@pytest.mark.parametrize("version", [0, 2])
def test_weights_of_the_version_before_are_committed_where_the_next_step_uses_them(
    pipeline: Pipeline, version: int
) -> None:
    door = Door(a_spec(steps=4, commit_every=2, pipeline=pipeline))
    member = door.holder(1)
    apply_steps(door, member, version)
    if version:
        door.send(member, door.commit(member, 0))
    expected = pipeline is Pipeline.DELAYED and version > 0
    other = commit_content(before=not expected, first=version == 0)
    door.refused("version before", member, door.commit(member, version, **other))
    without = commit_content(before=expected, first=version != 0)
    door.refused("with what its life began", member, door.commit(member, version, **without))
    door.send(member, door.commit(member, version))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"commitment": None}, "commits to no state"),
        ({"output": "b" * 64}, "not the root"),
        ({"update": step_content()["update"]}, "only other ops have"),
        ({"tokens": 4}, "only other ops have"),
        ({"microbatch": 1}, "only other ops have"),
        ({"attempt": 1}, "only other ops have"),
        ({"version": 1}, "does not have"),
        ({"step": 1}, "does not have"),
        ({"stage": 0}, "of stage 0"),
        ({"loss": 1.0}, "names a loss"),
        ({"device": "another"}, "another device"),
        ({"epoch": 1}, "has not begun"),
        ({"started": 0.0}, "ended before it started"),
    ],
    ids=str,
)
def test_a_commit_of_another_form_is_refused(door: Door, changes: dict[str, Any], why: str) -> None:
    member = door.holder(1)
    door.refused(why, member, door.commit(member, 0, **changes))
    door.send(member, door.commit(member, 0))


def test_who_has_no_life_in_the_epoch_commits_to_nothing(door: Door) -> None:
    late = door.driven.join(40)
    door.refused("not given to you", late, door.commit(late, 0))


def test_commits_of_a_closed_epoch_are_as_many_as_its_miner_can_have() -> None:
    given = {}
    for every in (2, 4):
        door = Door(a_spec(steps=4, commit_every=every))
        member = door.holder(1)
        door.close_step()
        door.close_step()
        given[every] = member.given_receipts
    assert given[2] == given[4] + 1
    door.run.epoch, door.run.epochs = 1, {1: EpochState(1)}
    for _ in range(member.given_receipts - member.receipts):
        door.send(member, door.commit(member, 0, epoch=0))
    door.refused("one more than", member, door.commit(member, 0, epoch=0))


# ---- lives ----------------------------------------------------------------------------------------


def renewed(door: Door, member: Member, *, after_s: float = 10.0) -> None:
    """The member takes the base anew, which is a new life at the first open step."""
    lives = len(door.run.current.lives[member.hotkey])
    door.driven.now += after_s
    door.rejoin(member)
    assert len(door.run.current.lives[member.hotkey]) == lives + 1


def test_a_new_life_commits_to_its_base_though_an_earlier_one_did() -> None:
    """Both joined at the same step."""
    door = Door(a_spec(replicas=1, steps=4, commit_every=2))
    member = door.holder(1)
    door.send(member, door.commit(member, 0))
    renewed(door, member)
    door.send(member, door.commit(member, 0))
    first, second = door.run.current.lives[member.hotkey]
    assert (first.committed, second.committed) == (0, 0)
    assert second.first_receipt == member.receipts


def test_a_life_that_joins_off_the_grid_commits_to_its_base() -> None:
    door = Door(a_spec(steps=4, commit_every=2))
    member = door.holder(1)
    door.close_step()
    renewed(door, member)
    door.refused("version before", member, door.commit(member, 1))
    door.send(member, door.commit(member, 1, joined=1))
    assert door.run.current.lives[member.hotkey][-1].next_commit == 2


def test_a_commit_of_an_earlier_life_after_a_receipt_of_the_present_one_is_refused(door: Door) -> None:
    member = door.holder(1)
    door.close_step()
    renewed(door, member)
    door.send(member, door.commit(member, 1, joined=1))
    door.refused("an earlier life", member, door.commit(member, 0))


@pytest.mark.parametrize("sent", [1, 2])
def test_a_late_commit_of_an_earlier_life_leaves_the_new_one_its_own(sent: int) -> None:
    """In `sync` nothing but its time tells to which life the commitment to a version belongs at which the
    second joined."""
    door = Door(a_spec(steps=4, commit_every=2, pipeline=Pipeline.SYNC))
    member = door.holder(1)
    door.close_step()
    door.close_step()
    late = [door.commit(member, 0), door.step(member, 0), door.step(member, 1), door.commit(member, 2)]
    renewed(door, member)
    door.send(member, *late[: 2 + sent])
    door.send(member, door.commit(member, 2, joined=2))
    first, second = door.run.current.lives[member.hotkey]
    assert (first.committed, second.committed) == ((0, 2)[sent - 1], 2)
    assert second.first_receipt == member.receipts
