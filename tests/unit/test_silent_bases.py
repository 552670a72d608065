"""Replicas that say nothing of the next base hold up one epoch, and not each."""

from __future__ import annotations

from iota.protocol.messages import Ready
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Phase
from tests.support.coordinators import Driven
from tests.support.small_spec import small_spec


def merged_but(driven: Driven, *silent: Member) -> None:
    """The current epoch is trained and merged, and all but these hold the next base."""
    state = driven.state
    for index in range(3):
        driven.run_microbatch(0, index)
    driven.give_all()
    driven.draw_mergers()
    driven.merge_all()
    for member in state.miners():
        if member not in silent:
            driven.say(member, reports=[Ready(epoch=state.epoch + 1, digest=f"{member.stage:064x}")])


def held_up() -> tuple[Driven, Member]:
    """Two stages of three replicas; one of them is silent on base 1, and comes late to epoch 1."""
    schedule = {"epochs": 3, "steps": 1, "microbatches": 3}
    driven = Driven.training(small_spec(layout={"cuts": [1, 2], "replicas": 3}, schedule=schedule))
    state, silent = driven.state, driven.state.miners()[0]
    merged_but(driven, silent)
    driven.wait(6.0)
    assert (state.phase, state.epoch) == (Phase.MERGING, 0)
    driven.wait(state.deadlines.merge.seconds)
    driven.wait(0.1)
    assert (state.phase, state.epoch) == (Phase.TRAINING, 1)
    driven.say(silent, reports=[Ready(epoch=1, digest=f"{silent.stage:064x}")])
    return driven, silent


def test_who_is_silent_on_a_base_holds_up_one_epoch_and_not_each() -> None:
    driven, silent = held_up()
    state = driven.state
    assert silent.joined is not None
    assert set(state.slow_givers) == {silent.owner}
    merged_but(driven, silent)
    driven.wait(6.0)
    assert (state.phase, state.epoch) == (Phase.TRAINING, 2)


def test_one_claim_decides_no_base_because_the_others_were_slow() -> None:
    driven, silent = held_up()
    state = driven.state
    other = state.miners(silent.stage)[1]
    state.slow_givers[other.owner] = 9
    merged_but(driven, silent, other)
    driven.wait(6.0)
    assert (state.phase, (2, silent.stage) in state.bases.digests) == (Phase.MERGING, False)
    assert (2, silent.stage) in state.bases.unmade
