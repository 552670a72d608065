"""Workers of one owner decide nothing between them while another owner's are there."""

from __future__ import annotations

import pytest

from iota.identity.keys import Hotkey
from iota.protocol.frames import StoredObject
from iota.protocol.messages import Delta, Ready
from orchestrator.coordinator import Coordinator, Joined
from orchestrator.coordinator.state import Phase
from tests.support.coordinators import LIMITS, Driven
from tests.support.orchestrators import make_spec
from tests.support.workers import OWNER, RIVAL, certified_join, key


def merging(*owners: Hotkey) -> Driven:
    """Two stages in their merge, each with a replica of each of the owners."""
    spec = make_spec(steps=1, microbatches=2)
    layout = spec.layout.model_copy(update={"replicas": len(owners)})
    driven = Driven(Coordinator(spec.model_copy(update={"layout": layout}), LIMITS))
    for number, owner in enumerate([owner for owner in owners for _ in range(spec.layout.stages)]):
        worker = key(number + 1)
        request = certified_join(driven.state.spec.id, worker, owner)
        driven.coordinator.apply(Joined(at=driven.now, hotkey=worker.ss58, request=request))
    for member in driven.state.miners():
        driven.say(member, reports=[Ready(epoch=0, digest=f"{member.stage:064x}")])
    for index in range(2):
        driven.run_microbatch(0, index)
    for member in driven.state.miners():
        sizes = driven.state.part_bytes[member.stage]
        parts = tuple(StoredObject(key=f"d/{n}", digest="1" * 64, size=s) for n, s in enumerate(sizes))
        driven.say(member, reports=[Delta(epoch=0, parts=parts)])
    assert driven.state.phase is Phase.MERGING
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
    driven = merging(OWNER, OWNER, RIVAL)
    driven.draw_mergers()
    driven.merge_all()
    one, two, other = driven.state.miners(0)
    for member in (one, two):
        driven.say(member, reports=[Ready(epoch=1, digest="a" * 64)])
    assert (1, 0) not in driven.state.bases.digests
    driven.lose(other)
    driven.say(one, reports=[Ready(epoch=1, digest="a" * 64)])
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    assert driven.state.bases.digests[1, 0] == "a" * 64


def test_one_worker_of_the_only_owner_makes_its_base() -> None:
    driven = merging(OWNER, OWNER)
    driven.draw_mergers()
    driven.merge_all()
    driven.say(driven.state.miners(0)[0], reports=[Ready(epoch=1, digest="a" * 64)])
    assert driven.state.bases.digests[1, 0] == "a" * 64


def test_the_claims_of_two_owners_make_a_base() -> None:
    driven = merging(OWNER, OWNER, RIVAL)
    driven.draw_mergers()
    driven.merge_all()
    _, two, other = driven.state.miners(0)
    for member in (two, other):
        driven.say(member, reports=[Ready(epoch=1, digest="b" * 64)])
    assert driven.state.bases.digests[1, 0] == "b" * 64
