"""Workers of one owner decide nothing between them while another owner's are there."""

from __future__ import annotations

import pytest

from iota.identity.keys import Hotkey
from iota.protocol.events import LoadBase
from iota.protocol.messages import Ready
from orchestrator.coordinator import BaseMade, Coordinator, Joined
from orchestrator.coordinator.state import Phase
from tests.support.coordinators import LIMITS, Driven
from tests.support.orchestrators import make_spec
from tests.support.workers import OWNER, RIVAL, certified_join, key

TRUE = "a" * 64
"""The digest of each base, as the orchestrator makes it."""


def merging(*owners: Hotkey) -> Driven:
    """Two stages in their merge, each with a replica of each of the owners."""
    spec = make_spec(steps=1, microbatches=2)
    layout = spec.layout.model_copy(update={"replicas": len(owners)})
    driven = Driven(Coordinator(spec.model_copy(update={"layout": layout}), LIMITS))
    for number, owner in enumerate([owner for owner in owners for _ in range(spec.layout.stages)]):
        worker = key(number + 1)
        request = certified_join(driven.state.spec.id, worker, owner)
        driven.coordinator.apply(Joined(at=driven.now, hotkey=worker.ss58, request=request))
    driven.hold_base()
    for index in range(2):
        driven.run_microbatch(0, index)
    driven.give_all()
    assert driven.state.phase is Phase.MERGING
    return driven


def merged(*owners: Hotkey) -> Driven:
    """The same, with all parts merged."""
    driven = merging(*owners)
    driven.draw_mergers()
    driven.merge_all()
    return driven


@pytest.mark.parametrize("block", range(20))
def test_a_part_is_merged_by_two_owners(block: int) -> None:
    driven = merging(OWNER, OWNER, OWNER, RIVAL)
    driven.draw_mergers(f"{block:064x}")
    for merge in driven.state.current.merges:
        for part in merge.parts:
            assert {driven.state.members[h].owner for h in part.mergers} == {OWNER.ss58, RIVAL.ss58}


def test_the_only_owner_merges_alone() -> None:
    driven = merging(OWNER, OWNER)
    driven.draw_mergers()
    assert all(len(part.mergers) == 2 for merge in driven.state.current.merges for part in merge.parts)


def test_two_workers_of_one_owner_do_not_choose_a_base_while_anothers_can_make_it() -> None:
    driven = merged(OWNER, OWNER, RIVAL)
    one, two, other = driven.state.miners(0)
    for member in (one, two):
        driven.say(member, reports=[Ready(epoch=1, digest="a" * 64)])
    assert (1, 0) not in driven.state.bases.digests
    driven.lose(other)
    driven.say(one, reports=[Ready(epoch=1, digest="a" * 64)])
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    assert driven.state.bases.digests[1, 0] == "a" * 64


def test_one_worker_of_the_only_owner_makes_its_base() -> None:
    driven = merged(OWNER, OWNER)
    driven.say(driven.state.miners(0)[0], reports=[Ready(epoch=1, digest="a" * 64)])
    assert driven.state.bases.digests[1, 0] == "a" * 64


def test_the_claims_of_two_owners_make_a_base() -> None:
    driven = merged(OWNER, OWNER, RIVAL)
    _, two, other = driven.state.miners(0)
    for member in (two, other):
        driven.say(member, reports=[Ready(epoch=1, digest="b" * 64)])
    assert driven.state.bases.digests[1, 0] == "b" * 64


def disagreeing(*owners: Hotkey) -> Driven:
    """The last owner's replica claims another base of stage 0 than all others."""
    driven = merged(*owners)
    *liars, honest = driven.state.miners(0)
    for member in liars:
        driven.say(member, reports=[Ready(epoch=1, digest="0" * 64)])
    driven.say(honest, reports=[Ready(epoch=1, digest="a" * 64)])
    return driven


@pytest.mark.parametrize("owners", [(OWNER, RIVAL), (OWNER, OWNER, RIVAL)])
def test_neither_a_small_digest_nor_many_workers_choose_a_base_that_owners_disagree_on(
    owners: tuple[Hotkey, ...],
) -> None:
    driven = disagreeing(*owners)
    assert (1, 0) not in driven.state.bases.digests
    (inputs,) = driven.coordinator.disputed_bases()
    assert "makes the next base of stage 0 itself" in str(driven.coordinator.status()["waiting"])
    ready = driven.state.current.merges[0].ready
    assert ready is not None
    assert (inputs.epoch, inputs.stage, inputs.before, inputs.merged) == (1, 0, None, ready.parts)
    *liars, honest = driven.state.miners(0)
    driven.coordinator.apply(BaseMade(at=driven.now, epoch=1, stage=0, digest="a" * 64))
    assert not driven.coordinator.disputed_bases()
    assert (honest.ready_epoch, {member.ready_epoch for member in liars}) == (1, {0})
    assert driven.state.bases.makers[1, 0] == (honest.hotkey,)


def test_a_disputed_base_that_nobody_claims_is_made_by_who_claims_it_then() -> None:
    driven = disagreeing(OWNER, RIVAL)
    driven.coordinator.apply(BaseMade(at=driven.now, epoch=1, stage=0, digest="b" * 64))
    one, two = driven.state.miners(0)
    assert one.ready_epoch == two.ready_epoch == 0
    driven.say(two, reports=[Ready(epoch=1, digest="b" * 64)])
    assert two.ready_epoch == 1


def test_a_made_base_that_is_not_disputed_changes_nothing() -> None:
    driven = merging(OWNER, RIVAL)
    driven.coordinator.apply(BaseMade(at=driven.now, epoch=1, stage=0, digest="b" * 64))
    assert (1, 0) not in driven.state.bases.digests


def slow_line(driven: Driven, seconds: float) -> None:
    """The line of the run's spec takes so long for the largest stage."""
    audit = driven.state.spec.audit.model_copy(
        update={"line": max(map(sum, driven.state.part_bytes)) / seconds}
    )
    driven.state.spec = driven.state.spec.model_copy(update={"audit": audit})


def join(driven: Driven, number: int, owner: Hotkey) -> None:
    """A worker of the owner joins."""
    request = certified_join(driven.state.spec.id, key(number), owner)
    driven.coordinator.apply(Joined(at=driven.now, hotkey=key(number).ss58, request=request))


def loading(*owners: Hotkey) -> Driven:
    """Two stages whose only replicas have joined; those of stage 1 hold the base."""
    spec = make_spec(steps=1, microbatches=2)
    layout = spec.layout.model_copy(update={"replicas": len(owners)})
    driven = Driven(Coordinator(spec.model_copy(update={"layout": layout}), LIMITS))
    for number, owner in enumerate([owner for owner in owners for _ in range(spec.layout.stages)]):
        request = certified_join(driven.state.spec.id, key(number + 1), owner)
        driven.coordinator.apply(Joined(at=driven.now, hotkey=key(number + 1).ss58, request=request))
    for member in driven.state.miners(1):
        driven.say(member, reports=[Ready(epoch=0, digest=TRUE)])
    driven.make_bases(TRUE)
    return driven


@pytest.mark.parametrize("owners", [(OWNER,), (OWNER, OWNER)])
def test_the_only_owner_of_a_stage_does_not_choose_the_base_of_the_seed(owners: tuple[Hotkey, ...]) -> None:
    driven = loading(*owners)
    for member in driven.state.miners(0):
        driven.say(member, reports=[Ready(epoch=0, digest="0" * 64)])
    assert (0, 0) not in driven.state.bases.digests
    assert "makes base 0 of stage 0 itself" in str(driven.coordinator.status()["waiting"])
    assert driven.make_bases(TRUE) == 1
    assert driven.state.bases.digests[0, 0] == TRUE
    assert driven.state.phase is Phase.GATHERING
    liar = driven.state.miners(0)[0]
    assert driven.news(liar)[-1] == LoadBase(epoch=0, digest=TRUE)
    for member in driven.state.miners(0):
        driven.say(member, reports=[Ready(epoch=0, digest=TRUE)])
    assert driven.state.phase is Phase.TRAINING


def test_two_owners_do_not_choose_a_false_base_of_the_seed() -> None:
    driven = loading(OWNER, RIVAL, key(99))
    *liars, honest = driven.state.miners(0)
    for member in liars:
        driven.say(member, reports=[Ready(epoch=0, digest="0" * 64)])
    driven.say(honest, reports=[Ready(epoch=0, digest=TRUE)])
    assert (0, 0) not in driven.state.bases.digests
    assert driven.make_bases(TRUE) == 1
    assert (honest.ready_epoch, {member.ready_epoch for member in liars}) == (0, {-1})


def test_who_claims_another_base_than_the_orchestrator_made_is_told_to_make_it_anew() -> None:
    driven = disagreeing(OWNER, RIVAL)
    for member in driven.state.miners(0):
        driven.news(member)
    driven.make_bases(TRUE)
    for member in driven.state.miners(0)[:1]:
        load, ready = driven.news(member)
        assert (load, ready) == (LoadBase(epoch=0, digest=f"{0:064x}"), driven.state.current.merges[0].ready)


def test_a_base_that_nobody_claims_counts_at_the_deadline_and_the_epoch_is_sealed() -> None:
    driven = disagreeing(OWNER, RIVAL)
    for member in driven.state.miners(1):
        driven.say(member, reports=[Ready(epoch=1, digest="1" * 64)])
    true = "b" * 64
    driven.coordinator.apply(BaseMade(at=driven.now, epoch=1, stage=0, digest=true))
    driven.wait(driven.state.deadlines.merge.seconds - 1, driven.state.head.block + 1)
    assert driven.state.epoch == 0
    due = driven.coordinator.next_deadline()
    assert due is not None
    driven.wait(due - driven.now + 1)
    assert (driven.state.epoch, driven.state.phase) == (1, Phase.TRAINING)
    driven.wait(0.0, driven.state.head.block + 1)
    found = [(b.digest, b.makers) for b in driven.record(0).bases if (b.epoch, b.stage) == (1, 0)]
    assert found == [(true, ())]
    late, _ = driven.state.miners(0)
    assert not late.work
    driven.say(late, reports=[Ready(epoch=1, digest=true)])
    assert driven.state.able(late)
    assert late.work


def test_one_claim_does_not_make_a_false_base_of_the_seed() -> None:
    spec = make_spec(steps=1, microbatches=2)
    driven = Driven(Coordinator(spec, LIMITS))
    for number, owner in enumerate([OWNER, OWNER, RIVAL]):
        request = certified_join(spec.id, key(number + 1), owner)
        driven.coordinator.apply(Joined(at=driven.now, hotkey=key(number + 1).ss58, request=request))
    liar, honest = driven.state.miners(0)
    driven.say(liar, reports=[Ready(epoch=0, digest="0" * 64)])
    driven.say(honest, reports=[Ready(epoch=0, digest="a" * 64)])
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    (inputs,) = driven.coordinator.disputed_bases()
    assert (inputs.epoch, inputs.before, inputs.merged) == (0, None, ())
    driven.coordinator.apply(BaseMade(at=driven.now, epoch=0, stage=0, digest="a" * 64))
    assert (honest.ready_epoch, liar.ready_epoch) == (0, -1)


def test_newcomers_without_work_do_not_choose_the_next_base() -> None:
    driven = merged(OWNER, RIVAL)
    for number in range(50, 54):
        join(driven, number, key(number + 40))
    one, two, *newcomers = driven.state.miners(0)
    for member in newcomers:
        driven.say(member, reports=[Ready(epoch=1, digest="0" * 64)])
    assert len(newcomers) == 2
    assert (1, 0) not in driven.state.bases.digests
    for member in (one, two):
        driven.say(member, reports=[Ready(epoch=1, digest=TRUE)])
    assert driven.state.bases.digests[1, 0] == TRUE
    assert (one.ready_epoch, two.ready_epoch, newcomers[0].ready_epoch) == (1, 1, -1)


def test_a_newcomer_alone_is_believed_once_the_orchestrator_has_made_the_same_base() -> None:
    driven = merged(OWNER, RIVAL)
    join(driven, 50, key(90))
    join(driven, 51, key(91))
    one, two, newcomer = driven.state.miners(0)
    driven.lose(one)
    driven.lose(two)
    driven.say(newcomer, reports=[Ready(epoch=0, digest=driven.state.bases.digests[0, 0])])
    driven.say(newcomer, reports=[Ready(epoch=1, digest=TRUE)])
    assert (1, 0) not in driven.state.bases.digests
    assert driven.make_bases(TRUE) == 1
    assert newcomer.ready_epoch == 1
    assert driven.state.bases.makers[1, 0] == (newcomer.hotkey,)


def test_a_replica_without_work_makes_a_base_doubtful_and_does_not_decide_it() -> None:
    driven = merged(OWNER, RIVAL)
    one, two = driven.state.miners(0)
    driven.state.current.counted.pop(two.hotkey)
    driven.say(one, reports=[Ready(epoch=1, digest="0" * 64)])
    assert (1, 0) not in driven.state.bases.digests
    driven.say(two, reports=[Ready(epoch=1, digest=TRUE)])
    assert driven.make_bases(TRUE) == 1
    assert (one.ready_epoch, two.ready_epoch) == (0, 1)


def test_an_owner_does_not_choose_the_base_while_others_cannot_have_fetched_the_merge() -> None:
    driven = merged(OWNER, RIVAL)
    slow_line(driven, 2080)
    stage = max(range(2), key=lambda s: sum(driven.state.part_bytes[s]))
    liar, _ = driven.state.miners(stage)
    driven.say(liar, reports=[Ready(epoch=1, digest="0" * 64)])
    driven.wait(driven.state.limits.max_s)
    assert not driven.coordinator.disputed_bases()
    driven.wait(2080 - driven.state.limits.max_s + 1)
    assert (1, stage) not in driven.state.bases.digests
    assert driven.make_bases(TRUE) == 1
    assert liar.ready_epoch == 0


def test_two_owners_do_not_choose_a_base_before_a_third_has_made_it() -> None:
    driven = merged(OWNER, RIVAL, key(99))
    *liars, honest = driven.state.miners(0)
    for member in liars:
        driven.say(member, reports=[Ready(epoch=1, digest="0" * 64)])
    assert (1, 0) not in driven.state.bases.digests
    driven.say(honest, reports=[Ready(epoch=1, digest=TRUE)])
    assert driven.make_bases(TRUE) == 1
    assert driven.state.bases.makers[1, 0] == (honest.hotkey,)


def test_two_owners_make_a_base_at_the_deadline_where_a_third_says_nothing() -> None:
    driven = merged(OWNER, RIVAL, key(99))
    for member in driven.state.miners(0)[:2]:
        driven.say(member, reports=[Ready(epoch=1, digest=TRUE)])
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    assert driven.state.bases.digests[1, 0] == TRUE


def test_a_stage_of_a_size_has_the_time_that_its_base_takes_before_the_next_epoch_begins() -> None:
    driven = merged(OWNER, OWNER)
    slow_line(driven, 2080)
    for stage in (0, 1):
        driven.say(driven.state.miners(stage)[0], reports=[Ready(epoch=1, digest=TRUE)])
    driven.wait(2080 - 1)
    assert driven.state.epoch == 0
    due = driven.coordinator.next_deadline()
    assert due is not None
    driven.wait(due - driven.now + 1)
    assert driven.state.epoch == 1


def test_who_claims_a_false_base_has_no_say_in_bases_any_more() -> None:
    driven = merged(OWNER, RIVAL)
    liar, honest = driven.state.miners(0)
    driven.say(liar, reports=[Ready(epoch=1, digest="0" * 64)])
    driven.say(liar, reports=[Ready(epoch=1, digest=TRUE)])  # its first claim stands
    driven.say(honest, reports=[Ready(epoch=1, digest=TRUE)])
    assert driven.make_bases(TRUE) == 1
    driven.say(liar, reports=[Ready(epoch=1, digest=TRUE)])
    assert liar.ready_epoch == 1
    (other,) = (m for m in driven.state.miners(1) if m.owner != liar.owner)
    driven.say(other, reports=[Ready(epoch=1, digest=TRUE)])
    assert driven.state.bases.digests[1, 1] == TRUE  # the liar's owner is not awaited
    driven.wait(driven.state.deadlines.merge.seconds + 1, driven.state.head.block + 1)
    driven.wait(0.0, driven.state.head.block + 1)
    assert {m.hotkey: m.unproven for m in driven.record(0).miners if m.unproven} == {liar.hotkey: 1}
