"""How long merges wait, in virtual time: for who is slow on purpose, and who is slow and honest."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import example, given, settings
from hypothesis import strategies as st

from iota.objects.delta_sizes import delta_bytes
from orchestrator.coordinator import Coordinator
from orchestrator.coordinator.patience import PATIENT, SHORT, SLOW_EPOCHS
from orchestrator.coordinator.state import Limits, Phase
from tests.support.coordinators import Driven
from tests.support.small_spec import small_spec

LIMITS = Limits(first_s=10.0, start_s=10.0, merge_first_s=120.0)
Delays = Mapping[int, float | None]
"""Miner by its number -> seconds until its pseudo-gradient is there; None: never."""


class Merges:
    """The merges of a run of one stage, whose replicas come when they are told to."""

    def __init__(self, replicas: int, epochs: int, line: float = 12.5e6) -> None:
        schedule = {"epochs": epochs, "steps": 1, "microbatches": replicas}
        spec = small_spec(layout={"cuts": [3], "replicas": replicas}, schedule=schedule, audit={"line": line})
        self.driven = Driven(Coordinator(spec, LIMITS))
        for number in range(replicas):
            self.driven.join(number)
        self.driven.hold_base()
        self.members = self.driven.state.miners()

    @property
    def sent_s(self) -> float:
        """Seconds that a pseudo-gradient takes on the slowest line."""
        state = self.driven.state
        sizes = sum(state.part_bytes[0]) // 4
        return delta_bytes(state.spec.outer.codec, sizes) / state.spec.audit.line

    def epoch(self, delays: Delays) -> tuple[float, set[int]]:
        """One epoch: for how long its merge waited, and whose pseudo-gradients it has not."""
        driven = self.driven
        for index in range(len(self.members)):
            driven.run_microbatch(0, index)
        assert driven.state.phase is Phase.MERGING
        merge, begun = driven.state.current.merges[0], driven.now
        coming = sorted((begun + s, number) for number, s in delays.items() if s is not None)
        while not merge.fixed:
            due = driven.coordinator.next_deadline()
            arrival = coming[0][0] if coming else float("inf")
            if due is not None and due + 0.001 < arrival:
                driven.wait(due + 0.001 - driven.now)
            else:
                driven.now = arrival
                driven.give(self.members[coming.pop(0)[1]])
        waited = driven.now - begun
        absent = {number for number in delays if self.members[number].hotkey not in merge.deltas}
        driven.draw_mergers()
        driven.merge_all()
        driven.seal()
        return waited, absent


def slow_bound(merges: Merges, quorum: float, patience: tuple[float, float]) -> float:
    """What a wait lasts at the most, once the first half came after `quorum` seconds."""
    return max(patience[0], patience[1] * quorum, 2 * merges.sent_s) + 0.1


def test_one_that_never_gives_holds_up_one_merge_in_nine_and_the_others_for_a_short_time() -> None:
    merges = Merges(replicas=4, epochs=2 * SLOW_EPOCHS + 3)
    waits = [merges.epoch({0: 1.0, 1: 1.0, 2: 2.0, 3: None})[0] for _ in range(SLOW_EPOCHS + 2)]
    assert 10 < waits[0] <= slow_bound(merges, 1.0, PATIENT)
    assert all(wait <= slow_bound(merges, 1.0, SHORT) for wait in waits[1:])


def test_who_comes_just_in_time_is_merged_and_has_no_such_time_again() -> None:
    merges = Merges(replicas=3, epochs=4)
    first, absent = merges.epoch({0: 1.0, 1: 1.0, 2: 19.0})
    assert (round(first), absent) == (19, set())
    second, absent = merges.epoch({0: 1.0, 1: 1.0, 2: 19.0})
    assert (second <= slow_bound(merges, 1.0, SHORT), absent) == (True, {2})


def test_a_replica_that_was_late_once_is_waited_for_as_before_when_it_was_not_for_some_epochs() -> None:
    merges = Merges(replicas=3, epochs=SLOW_EPOCHS + 3)
    merges.epoch({0: 1.0, 1: 1.0, 2: None})
    for epoch in range(SLOW_EPOCHS):
        assert merges.epoch({0: 1.0, 1: 1.0, 2: 1.0 + 3.9 * (epoch % 2)})[1] == set()
    waited, absent = merges.epoch({0: 1.0, 1: 1.0, 2: 14.0})
    assert (round(waited), absent) == (14, set()), "the deadline is 14.7 s by the waits before"


def test_the_only_replica_of_a_stage_has_the_whole_deadline_each_time() -> None:
    merges = Merges(replicas=1, epochs=3)
    assert merges.epoch({0: 110.0}) == (110.0, set())
    assert merges.epoch({0: 110.0}) == (110.0, set())


@settings(max_examples=30, deadline=None)
@given(
    replicas=st.integers(2, 7),
    line=st.sampled_from([12.5e6, 2e3]),
    honest=st.lists(st.floats(0.1, 1.0), min_size=8, max_size=8),
    hostile=st.lists(
        st.lists(st.sampled_from([0.0, 4.0, 19.0, 119.0, None]), min_size=8, max_size=8),
        min_size=3,
        max_size=3,
    ),
)
@example(replicas=6, line=2e3, honest=[1.0] * 8, hostile=[[0.0] * 8] * 3)
def test_whoever_is_slow_on_purpose_honest_replicas_are_merged_and_waits_are_bounded(
    replicas: int, line: float, honest: list[float], hostile: list[list[float | None]]
) -> None:
    """Up to half of the replicas come at once, late or never, as they like in each of eight epochs.

    An honest one takes up to twice what its bytes take on the slowest line, or some seconds.
    """
    merges = Merges(replicas, epochs=9, line=line)
    liars, last_patient = replicas // 2, dict.fromkeys(range(replicas), -SLOW_EPOCHS - 1)
    for epoch in range(8):
        usual = max(4.0, 1.9 * merges.sent_s)
        delays: dict[int, float | None] = {n: honest[n] * usual for n in range(liars, replicas)}
        delays |= {n: hostile[n % 3][epoch] for n in range(liars)}
        waited, absent = merges.epoch(delays)
        assert absent <= set(range(liars)), "an honest one was shut out"
        most = max(usual, slow_bound(merges, usual, SHORT))
        if waited > most:
            culprits = [n for n in range(liars) if (s := delays[n]) is None or s > usual]
            patient = [n for n in culprits if epoch - last_patient[n] > SLOW_EPOCHS]
            assert patient, "nobody held the merge up for the first time"
            assert waited <= slow_bound(merges, usual, PATIENT)
            last_patient |= dict.fromkeys(culprits, epoch)
