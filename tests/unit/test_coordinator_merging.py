"""The end of an epoch: pseudo-gradients, two mergers a part, and the next base."""

from __future__ import annotations

from collections import Counter

import pytest

from iota.protocol.events import BaseAssign, EpochClose, LoadBase, MergeReady
from iota.protocol.frames import StoredObject
from iota.protocol.messages import BaseStored, Delta, Ready
from orchestrator.coordinator import Coordinator, Resumed
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.outages import RETURN_S
from orchestrator.coordinator.state import Phase
from tests.support.coordinators import LIMITS, Driven
from tests.support.small_spec import small_spec


@pytest.fixture
def driven() -> Driven:
    """An epoch of one step has ended at three stages of two replicas."""
    schedule = {"epochs": 2, "steps": 1, "microbatches": 2}
    found = Driven.training(small_spec(layout={"cuts": [1, 1, 1], "replicas": 2}, schedule=schedule))
    for index in range(2):
        found.run_microbatch(0, index)
    assert found.state.phase is Phase.MERGING
    return found


def _stored(driven: Driven, stage: int, name: str, digest: int = 1) -> tuple[StoredObject, ...]:
    sizes = driven.state.part_bytes[stage]
    return tuple(
        StoredObject(key=f"{name}/{n}", digest=f"{digest:064x}", size=s) for n, s in enumerate(sizes)
    )


def _give_all(driven: Driven) -> None:
    for member in driven.state.miners():
        driven.say(member, reports=[Delta(epoch=0, parts=_stored(driven, member.stage, member.hotkey))])
    driven.draw_mergers()


def _assigned(driven: Driven, stage: int, part: int = 0) -> list[Member]:
    mergers = driven.state.current.merges[stage].parts[part].mergers
    return [driven.state.members[hotkey] for hotkey in mergers]


def test_parts_are_merged_by_two_drawn_miners_once_all_have_given(driven: Driven) -> None:
    members = driven.state.miners()
    for member in members[:-1]:
        driven.say(member, reports=[Delta(epoch=0, parts=_stored(driven, member.stage, "d"))])
    last = driven.state.current.merges[members[-1].stage]
    assert not last.fixed
    driven.say(members[-1], reports=[Delta(epoch=0, parts=_stored(driven, members[-1].stage, "d"))])
    assert last.fixed
    driven.draw_mergers()
    assert all(len(part.mergers) == 2 for merge in driven.state.current.merges for part in merge.parts)
    driven.merge_all()
    for member in members:
        driven.say(member, reports=[Ready(epoch=1, digest="3" * 64)])
    driven.wait(0.0, block=driven.state.head.block + 1)
    assert any(isinstance(e, EpochClose) for e in driven.news(members[0])), "the seal covers the merges"


def test_a_late_replica_is_named_and_left_out(driven: Driven) -> None:
    members = driven.state.miners()
    for member in members[1:]:
        driven.say(member, reports=[Delta(epoch=0, parts=_stored(driven, member.stage, "d"))])
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    assert any(members[0].hotkey in text for text in driven.state.incidents.named)
    assert members[0].hotkey not in driven.state.current.merges[members[0].stage].deltas


def test_one_that_never_comes_does_not_lengthen_the_deadline(driven: Driven) -> None:
    members = driven.state.miners()
    for member in members[1:]:
        driven.say(member, reports=[Delta(epoch=0, parts=_stored(driven, member.stage, "d"))])
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    assert driven.state.current.merges[members[0].stage].fixed
    assert len(driven.state.deadlines.merge.samples) == driven.state.stages - 1


def test_a_pseudo_gradient_of_other_sizes_is_not_taken(driven: Driven) -> None:
    member = driven.state.miners()[0]
    part = StoredObject(key="x", digest="0" * 64, size=1)
    driven.say(member, reports=[Delta(epoch=0, parts=(part,))])
    assert driven.state.totals.unfit == 1
    assert not driven.state.current.merges[member.stage].deltas


def test_a_replica_that_loses_its_disk_after_its_pseudo_gradient_keeps_its_weight_in_the_merge(
    driven: Driven,
) -> None:
    """Its next life begins with the next epoch, so that its bounds are those of the steps that it did."""
    first, *others = driven.state.miners()
    driven.say(first, reports=[Delta(epoch=0, parts=_stored(driven, first.stage, first.hotkey))])
    driven.join(0)
    driven.say(first, reports=[Ready(epoch=0, digest=f"{first.stage:064x}")])
    for member in others:
        driven.say(member, reports=[Delta(epoch=0, parts=_stored(driven, member.stage, member.hotkey))])
    driven.draw_mergers()
    [part] = driven.state.current.merges[first.stage].parts
    given = {c.hotkey: (c.tokens, c.joined) for c in part.assign.contributions}
    assert given[first.hotkey] == (driven.state.spec.data.tokens, 0)
    assert len(driven.state.current.lives[first.hotkey]) == 1


def test_two_equal_copies_settle_a_part(driven: Driven) -> None:
    _give_all(driven)
    for stage in range(3):
        for member in _assigned(driven, stage):
            driven.merge(member, stage)
    for member in driven.state.miners():
        assert any(isinstance(e, MergeReady) for e in driven.news(member))


def test_who_was_not_drawn_cannot_merge(driven: Driven) -> None:
    _give_all(driven)
    drawn = {m.hotkey for m in _assigned(driven, 0)}
    other = next(m for m in driven.state.miners() if m.hotkey not in drawn)
    driven.merge(other, 0)
    assert driven.state.totals.unfit == 1


def test_the_draw_depends_on_the_block_and_is_even_among_those_that_are_live() -> None:
    schedule = {"epochs": 1, "steps": 1, "microbatches": 6}
    drawn: Counter[str] = Counter()
    for block in range(150):
        driven = Driven.training(small_spec(layout={"cuts": [3], "replicas": 6}, schedule=schedule))
        for index in range(6):
            driven.run_microbatch(0, index)
        gone = driven.state.miners()[0]
        driven.lose(gone)
        for member in driven.state.miners()[1:]:
            driven.say(member, reports=[Delta(epoch=0, parts=_stored(driven, 0, member.hotkey))])
        driven.draw_mergers(f"{block:064x}")
        mergers = driven.state.current.merges[0].parts[0].mergers
        assert gone.hotkey not in mergers
        assert len(set(mergers)) == 2
        drawn.update(mergers)
    assert len(drawn) == 5
    assert all(30 < times < 95 for times in drawn.values())  # 60 on average, deviation 6


def test_a_lost_merger_is_replaced_once(driven: Driven) -> None:
    _give_all(driven)
    driven.lose(_assigned(driven, 0)[0])
    assert len(_assigned(driven, 0)) == 3
    for block in range(3):
        driven.wait(0.1, block=block)
    assert len(_assigned(driven, 0)) == 3


def test_a_part_without_a_second_merger_draws_when_a_miner_comes_and_not_with_every_entry() -> None:
    driven = Driven.training(small_spec(schedule={"epochs": 2, "steps": 1, "microbatches": 2}))
    for index in range(2):
        driven.run_microbatch(0, index)
    _give_all(driven)
    parts = [part for merge in driven.state.current.merges for part in merge.parts]
    driven.lose(driven.state.miners()[1])
    draws = [part.draws for part in parts]
    for _ in range(5):
        driven.wait(1)
    assert [part.draws for part in parts] == draws
    new = driven.join(7)
    assert [part.mergers[-1] for part in parts] == [new.hotkey] * len(parts)


def test_a_copy_of_the_merger_that_came_for_a_lost_one_settles_the_part(driven: Driven) -> None:
    _give_all(driven)
    lost, first = _assigned(driven, 0)
    driven.lose(lost)
    driven.merge(first, 0)
    driven.merge(_assigned(driven, 0)[2], 0)
    assert driven.state.current.merges[0].parts[0].agreed is not None


def test_two_equal_claims_fix_a_base_and_one_holder_is_asked_to_store_it(driven: Driven) -> None:
    _give_all(driven)
    for stage in range(3):
        for member in _assigned(driven, stage):
            driven.merge(member, stage)
    one, two = driven.state.miners(0)
    driven.news(one)
    driven.say(one, reports=[Ready(epoch=1, digest="a" * 64)])
    assert (1, 0) not in driven.state.bases.digests
    driven.say(two, reports=[Ready(epoch=1, digest="a" * 64)])
    assert driven.state.bases.digests[1, 0] == "a" * 64
    keeper = driven.state.bases.keepers[1, 0]
    assert keeper in (one.hotkey, two.hotkey)
    assert any(isinstance(e, BaseAssign) for m in (one, two) for e in driven.news(m))
    other = one if keeper == two.hotkey else two
    driven.say(other, reports=[BaseStored(epoch=1, digest="a" * 64, parts=())])
    assert (1, 0) not in driven.state.bases.stored
    driven.say(driven.state.members[keeper], reports=[BaseStored(epoch=1, digest="a" * 64, parts=())])
    assert driven.state.bases.stored[1, 0].digest == "a" * 64


@pytest.mark.parametrize("away_s", [2.0, 1000.0])
def test_a_merger_is_not_late_because_it_pauses_after_an_outage_of_the_orchestrator(
    driven: Driven, away_s: float
) -> None:
    _give_all(driven)
    driven.now += away_s
    driven.coordinator.apply(Resumed(at=driven.now))
    driven.wait(min(2 * away_s, RETURN_S) + driven.state.deadlines.merge.seconds - 0.1)
    assert not driven.state.current.late_mergers
    driven.wait(0.2)
    assert driven.state.current.late_mergers


def test_a_merger_that_is_drawn_right_after_an_outage_has_the_time_to_hear_of_it(driven: Driven) -> None:
    driven.now += 1000
    driven.coordinator.apply(Resumed(at=driven.now))
    _give_all(driven)
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    assert not driven.state.current.late_mergers
    driven.wait(RETURN_S)
    assert driven.state.current.late_mergers


def test_one_replica_decides_no_base_because_the_orchestrator_was_down(driven: Driven) -> None:
    _give_all(driven)
    for member in _assigned(driven, 0):
        driven.merge(member, 0)
    one, _ = driven.state.miners(0)
    driven.say(one, reports=[Ready(epoch=1, digest="a" * 64)])
    driven.now += 1000
    driven.coordinator.apply(Resumed(at=driven.now))
    driven.wait(1)
    assert not driven.coordinator.disputed_bases()
    driven.wait(RETURN_S + driven.state.deadlines.merge.seconds)
    assert (1, 0) not in driven.state.bases.digests
    assert driven.make_bases("a" * 64) == 1
    assert one.ready_epoch == 1


def test_an_epoch_does_not_begin_with_few_replicas_because_the_orchestrator_was_down() -> None:
    driven = Driven(
        Coordinator(small_spec(layout={"cuts": [1, 2], "replicas": 3}, schedule={"microbatches": 3}), LIMITS)
    )
    for number in range(6):
        driven.join(number)
    for stage in range(2):
        for member in driven.state.miners(stage)[:2]:
            driven.say(member, reports=[Ready(epoch=0, digest=f"{stage:064x}")])
    driven.make_bases()
    assert driven.state.gathering_since == driven.now
    driven.now += 1000
    driven.coordinator.apply(Resumed(at=driven.now))
    driven.wait(1)
    assert driven.state.phase is Phase.GATHERING
    driven.wait(LIMITS.start_s)
    assert driven.state.phase is Phase.TRAINING


def test_a_live_replica_that_missed_the_merge_is_sent_the_way_to_the_next_base(driven: Driven) -> None:
    _give_all(driven)
    for stage in range(3):
        for member in _assigned(driven, stage):
            driven.merge(member, stage)
    *others, slow = driven.state.miners()
    for member in others:
        driven.say(member, reports=[Ready(epoch=1, digest=f"{member.stage:064x}")])
    driven.news(slow)
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    driven.make_bases()
    assert (driven.state.epoch, driven.state.phase) == (1, Phase.TRAINING)
    ways = [e for e in driven.news(slow) if isinstance(e, LoadBase | MergeReady)]
    assert [type(e) for e in ways] == [LoadBase, MergeReady]
    assert slow.told_base == 1
