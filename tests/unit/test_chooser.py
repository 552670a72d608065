"""The choice of the link that a frame is sent over."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from statistics import median

import pytest

from iota.wire.chooser import Choice, Chooser, Limits, Outcome
from iota.wire.link import LinkKind

DIRECT, IROH, STORE = LinkKind.DIRECT, LinkKind.IROH, LinkKind.STORE
BOTH = [DIRECT, IROH]
LIMITS = Limits()
SIZE = 2_200_000
ARRIVED, FAILED = Outcome.ARRIVED, Outcome.FAILED


def choose(chooser: Chooser, now: float = 0.0, usable: list[LinkKind] = BOTH, peer: str = "a") -> Choice:
    return chooser.choose(peer, SIZE, now, usable)


def transfer(
    chooser: Chooser,
    kind: LinkKind,
    at: float,
    seconds: float = 0.1,
    outcome: Outcome = ARRIVED,
    *,
    peer: str = "a",
    size: int = SIZE,
) -> None:
    """One transfer, from its begin to its end."""
    chooser.ended(chooser.began(peer, kind, size, at), at + seconds, outcome)


def known(chooser: Chooser, seconds: dict[LinkKind, float], at: float = 0.0, peer: str = "a") -> Chooser:
    """Give a peer's links a past in which each frame took so long."""
    for kind, each in seconds.items():
        for number in range(20):
            transfer(chooser, kind, at + number * 0.01, each, peer=peer)
    return chooser


def broken(chooser: Chooser, kind: LinkKind, at: float, peer: str = "a") -> None:
    """Open a link's breaker."""
    for _ in range(LIMITS.failures_to_break):
        transfer(chooser, kind, at, 0.0, FAILED, peer=peer)
    assert chooser.summary(peer)[kind].broken


def probe_times(chooser: Chooser, start: float, end: float, every: float = 0.25) -> list[float]:
    """When the direct link is probed, if each probe fails."""
    times = []
    now = start
    while now < end:
        choice = choose(chooser, now)
        if choice.probe and choice.kind is DIRECT:
            times.append(now)
            transfer(chooser, DIRECT, now, 0.0, FAILED)
        now += every
    return times


# ---- which link ----------------------------------------------------------------------------------------


def test_the_first_frame_goes_by_the_most_promising_link_and_is_hedged_after_a_second() -> None:
    choice = choose(Chooser())
    assert (choice.kind, choice.hedge_after_s, choice.probe) == (DIRECT, LIMITS.first_hedge_s, False)


def test_the_store_is_always_there_and_has_no_rival_alone() -> None:
    choice = choose(Chooser(), usable=[])
    assert (choice.kind, choice.hedge_after_s) == (STORE, None)


def test_the_link_that_takes_least_time_is_chosen() -> None:
    assert choose(known(Chooser(), {DIRECT: 0.1, IROH: 0.3})).kind is DIRECT
    assert choose(known(Chooser(), {DIRECT: 0.3, IROH: 0.1})).kind is IROH


def test_small_frames_take_the_link_of_the_least_latency_and_large_ones_that_of_most_throughput() -> None:
    chooser = Chooser()
    for number in range(60):
        size = (10_000, 20_000_000)[number % 2]
        transfer(chooser, DIRECT, number, 0.01 + size / 2e6, size=size)
        transfer(chooser, IROH, number, 0.5 + size / 40e6, size=size)
    assert chooser.choose("a", 10_000, 100.0, BOTH).kind is DIRECT
    assert chooser.choose("a", 20_000_000, 100.0, BOTH).kind is IROH


def test_a_store_that_takes_as_long_as_a_link_costs_twice_and_the_announcement() -> None:
    chooser = known(known(Chooser(), {DIRECT: 0.4}), {STORE: 0.2})
    assert choose(chooser, 1.0, [DIRECT]).kind is DIRECT
    assert choose(known(Chooser(), {DIRECT: 0.6, STORE: 0.2}), 1.0, [DIRECT]).kind is STORE


def test_a_link_that_often_fails_is_left_for_a_slower_one_that_does_not() -> None:
    chooser = known(Chooser(), {DIRECT: 0.1, IROH: 0.15})
    for number in range(10):
        transfer(chooser, DIRECT, 1.0 + number, 0.1, (FAILED, ARRIVED)[number % 2])
    assert choose(chooser, 9.5).kind is IROH


def test_bytes_under_way_send_the_next_frame_over_another_link() -> None:
    chooser = known(Chooser(), {DIRECT: 0.2, IROH: 0.25})
    chooser.began("a", DIRECT, SIZE, 1.0)
    assert choose(chooser, 1.0).kind is IROH


def test_transfers_side_by_side_are_not_taken_for_a_slow_link() -> None:
    chooser = Chooser()
    for at in range(20):
        tokens = [chooser.began("a", DIRECT, SIZE, float(at)) for _ in range(4)]
        for token in tokens:
            chooser.ended(token, at + 0.05 + 4 * 0.1, ARRIVED)  # 0.15 s alone
    found = chooser.summary("a")[DIRECT]
    assert found.latency_s + SIZE / found.bytes_per_s == pytest.approx(0.15, rel=0.3)


# ---- deadlines and hedges ------------------------------------------------------------------------------


def test_the_deadline_is_the_median_and_six_mad_for_a_frame_of_its_size() -> None:
    chooser = known(Chooser(), {DIRECT: 20.0, STORE: 90.0})
    times = [18.0, 20.0, 22.0, 24.0] * 8
    for number, seconds in enumerate(times):
        transfer(chooser, DIRECT, 100.0 * number, seconds)
    mad = median(abs(each - median(times)) for each in times)
    assert choose(chooser, 1e4, [DIRECT]).deadline_s == pytest.approx(median(times) + 6 * mad, rel=0.2)
    half = chooser.choose("a", SIZE // 2, 1e4, [DIRECT]).deadline_s
    assert LIMITS.min_deadline_s < half < 0.8 * choose(chooser, 1e4, [DIRECT]).deadline_s


def test_a_deadline_has_bounds() -> None:
    fast = known(Chooser(), {DIRECT: 0.01})
    assert choose(fast, 1.0, [DIRECT]).deadline_s == LIMITS.min_deadline_s
    assert choose(Chooser()).deadline_s == LIMITS.longest_s(SIZE)


def test_a_frame_that_is_late_is_hedged_and_one_that_takes_its_usual_time_is_not() -> None:
    chooser = known(Chooser(), {STORE: 9.0})
    for number in range(32):
        transfer(chooser, DIRECT, 10.0 * number, (0.9, 1.0, 1.1)[number % 3])
    after_s = choose(chooser, 400.0, [DIRECT]).hedge_after_s
    assert after_s is not None
    assert 1.5 < after_s < 3.0


def test_fallbacks_are_the_other_links_each_once_and_the_store() -> None:
    chooser = Chooser()
    kinds, tried = [], [DIRECT]
    while (choice := chooser.next("a", SIZE, 0.0, BOTH, tried)) is not None:
        kinds.append(choice.kind)
        tried.append(choice.kind)
    assert kinds == [IROH, STORE]


def test_a_link_whose_breaker_is_open_is_the_very_last_to_fall_back_on() -> None:
    chooser = known(Chooser(), {IROH: 0.3})
    broken(chooser, DIRECT, 1.0)
    assert chooser.next("a", SIZE, 1.0, BOTH, [IROH]).kind is STORE
    last = chooser.next("a", SIZE, 1.0, BOTH, [IROH, STORE])
    assert (last.kind, last.probe, last.hedge_after_s) == (DIRECT, True, None)


# ---- breakers and probes -------------------------------------------------------------------------------


def test_failures_in_a_row_open_the_breaker_and_pauses_between_probes_double() -> None:
    chooser = known(Chooser(), {DIRECT: 0.05, IROH: 0.3})
    broken(chooser, DIRECT, 1.0)
    times = probe_times(chooser, 1.0, 600.0)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert times[0] == 1.0 + LIMITS.first_pause_s
    assert pauses == [min(2.0**n, LIMITS.max_pause_s) for n in range(1, len(pauses) + 1)]


def test_a_probe_is_a_real_frame_hedged_at_once_by_the_best_link_and_only_one_at_a_time() -> None:
    chooser = known(Chooser(), {DIRECT: 0.05, IROH: 0.3})
    broken(chooser, DIRECT, 1.0)
    probe = choose(chooser, 3.0)
    assert (probe.kind, probe.probe, probe.hedge_after_s) == (DIRECT, True, 0.0)
    assert chooser.next("a", SIZE, 3.0, BOTH, [DIRECT]).kind is IROH
    token = chooser.began("a", DIRECT, SIZE, 3.0)
    assert choose(chooser, 90.0).kind is IROH
    chooser.ended(token, 90.0, FAILED)
    assert choose(chooser, 90.0 + LIMITS.pause_s(1)).kind is DIRECT


def test_a_probe_that_arrives_closes_the_breaker_and_its_time_is_what_counts() -> None:
    chooser = known(Chooser(), {DIRECT: 0.05, IROH: 0.3})
    transfer(chooser, DIRECT, 1.0, 50.0, FAILED)
    broken(chooser, DIRECT, 60.0)
    assert choose(chooser, 70.0).probe
    transfer(chooser, DIRECT, 70.0, 0.05)
    choice = choose(chooser, 71.0)
    assert (choice.kind, choice.probe) == (DIRECT, False)


def test_a_link_that_breaks_again_soon_is_probed_more_seldom() -> None:
    chooser = known(Chooser(), {DIRECT: 0.05, IROH: 0.3})
    broken(chooser, DIRECT, 1.0)
    assert choose(chooser, 3.0).probe
    transfer(chooser, DIRECT, 3.0, 0.05)
    transfer(chooser, DIRECT, 4.0, 0.0, FAILED)
    assert chooser.summary("a")[DIRECT].broken
    assert chooser.summary("a")[DIRECT].probe_at == 4.0 + LIMITS.pause_s(1)


def test_a_link_that_works_again_for_some_frames_is_trusted_as_before() -> None:
    chooser = known(Chooser(), {DIRECT: 0.05, IROH: 0.3})
    broken(chooser, DIRECT, 1.0)
    probe_times(chooser, 1.0, 100.0)
    transfer(chooser, DIRECT, 200.0, 0.05)
    for number in range(5):
        transfer(chooser, DIRECT, 201.0 + number, 0.05)
    transfer(chooser, DIRECT, 210.0, 0.0, FAILED)
    assert not chooser.summary("a")[DIRECT].broken
    broken(chooser, DIRECT, 211.0)
    assert chooser.summary("a")[DIRECT].probe_at == 211.0 + LIMITS.first_pause_s


def test_a_link_that_never_brought_a_frame_is_tried_in_probes_alone() -> None:
    chooser = known(Chooser(), {DIRECT: 0.3})
    transfer(chooser, IROH, 1.0, 0.0, FAILED)
    choice = choose(chooser, 5.0)
    assert (choice.kind, choice.probe, choice.hedge_after_s) == (IROH, True, 0.0)
    assert choose(chooser, 5.0).kind is DIRECT


def test_a_link_that_was_never_tried_is_probed_once_beside_a_good_one() -> None:
    chooser = known(Chooser(), {DIRECT: 0.02})
    choice = choose(chooser, 1.0)
    assert (choice.kind, choice.probe, choice.hedge_after_s) == (IROH, True, 0.0)
    transfer(chooser, IROH, 1.0, 97.0, FAILED)
    assert {choose(chooser, 100.0 + n).kind for n in range(1000)} == {DIRECT}


def test_a_link_slower_than_the_best_is_not_probed_unless_it_once_was_better() -> None:
    chooser = known(Chooser(), {DIRECT: 0.05, IROH: 0.3})
    assert {choose(chooser, 1.0 + n).kind for n in range(1000)} == {DIRECT}
    for number in range(8):
        transfer(chooser, DIRECT, 1001.0 + 3 * number, 2.0)
    kinds = {(c := choose(chooser, 1030.0 + n)).kind: c.probe for n in range(1000)}
    assert kinds == {IROH: False, DIRECT: True}


def test_a_peer_that_is_away_has_one_series_of_pauses() -> None:
    chooser = known(Chooser(), {DIRECT: 0.05, IROH: 0.1, STORE: 2.0})
    broken(chooser, DIRECT, 1.0)
    broken(chooser, IROH, 1.0)
    probes, now = [], 1.0
    while now < 200.0:
        choice = choose(chooser, now)
        if choice.probe:
            probes.append(choice.kind)
            transfer(chooser, choice.kind, now, 0.0, FAILED)
        now += 0.25
    assert len(probes) < 14
    assert set(probes) == {DIRECT, IROH}


def test_when_one_link_of_a_peer_that_was_away_is_back_the_others_are_tried_at_once() -> None:
    chooser = known(Chooser(), {DIRECT: 0.05, IROH: 0.3})
    broken(chooser, DIRECT, 1.0)
    probe_times(chooser, 1.0, 200.0)
    assert chooser.summary("a")[DIRECT].probe_at > 240.0
    broken(chooser, IROH, 200.0)
    assert choose(chooser, 202.0).kind is IROH
    transfer(chooser, IROH, 202.0, 0.3)
    choice = choose(chooser, 203.0)
    assert (choice.kind, choice.probe) == (DIRECT, True)


def test_a_peer_that_is_slow_for_every_link_breaks_none() -> None:
    chooser, now, breaks = Chooser(), 0.0, False
    for _ in range(50):
        choice = choose(chooser, now)
        seconds = 60.0
        late = choice.deadline_s < seconds
        transfer(chooser, choice.kind, now, min(seconds, choice.deadline_s), FAILED if late else ARRIVED)
        now += seconds
        breaks |= any(link.broken for link in chooser.summary("a").values())
    assert not breaks
    assert {link.failure_rate for link in chooser.summary("a").values()} == {0.0}


# ---- what is no failure --------------------------------------------------------------------------------


def test_a_refusal_is_no_fault_of_the_link_but_refusals_without_end_open_its_breaker() -> None:
    chooser = known(Chooser(), {DIRECT: 0.05, IROH: 0.3})
    for _ in range(LIMITS.refusals_to_break - 1):
        transfer(chooser, DIRECT, 1.0, 5.0, Outcome.REFUSED_LATER)
    assert choose(chooser, 2.0).kind is DIRECT
    assert chooser.summary("a")[DIRECT].failure_rate == 0.0
    transfer(chooser, DIRECT, 3.0, 0.0, Outcome.REFUSED_LATER)
    assert choose(chooser, 3.0).kind is IROH


def test_a_refusal_shows_that_a_broken_link_is_back() -> None:
    chooser = known(Chooser(), {DIRECT: 0.05, IROH: 0.3})
    broken(chooser, DIRECT, 1.0)
    transfer(chooser, DIRECT, 2.0, 0.0, Outcome.REFUSED_LATER)
    assert choose(chooser, 2.0).kind is DIRECT


def test_a_hedge_that_is_stopped_early_says_nothing_and_a_transfer_stopped_late_is_slow() -> None:
    chooser = known(Chooser(), {DIRECT: 0.1, IROH: 0.3})
    before = chooser.summary("a")[IROH]
    transfer(chooser, IROH, 1.0, 0.2, Outcome.CANCELLED)
    after = chooser.summary("a")[IROH]
    assert (after.latency_s, after.failure_rate) == (before.latency_s, 0.0)
    transfer(chooser, DIRECT, 1.0, 0.8, Outcome.CANCELLED)
    assert choose(chooser, 2.0 - 0.1).kind is IROH
    assert chooser.summary("a")[DIRECT].failure_rate == 0.0


# ---- peers ---------------------------------------------------------------------------------------------


def test_the_store_is_one_link_for_all_peers_and_never_breaks() -> None:
    chooser = Chooser()
    for number in range(50):
        transfer(chooser, STORE, float(number), 1.0, FAILED, peer=f"peer {number}")
    assert not chooser.summary("another")[STORE].broken
    assert chooser.summary("another")[STORE].failure_rate > 0.9
    assert choose(chooser, 60.0, []).kind is STORE


def test_a_changed_contact_is_measured_anew_but_no_sooner_than_a_first_pause() -> None:
    chooser = known(Chooser(), {DIRECT: 0.05, IROH: 0.3})
    broken(chooser, DIRECT, 1.0)
    probe_times(chooser, 1.0, 300.0)
    at = chooser.summary("a")[DIRECT].probe_at - LIMITS.pause_s(9)
    chooser.forget("a")
    known(chooser, {IROH: 0.3}, at=300.0)
    found = chooser.summary("a")[DIRECT]
    assert (found.measured, found.broken) == (0, True)
    assert found.probe_at == pytest.approx(at + LIMITS.first_pause_s, abs=LIMITS.max_pause_s)
    assert choose(chooser, 301.0).kind is DIRECT


def test_a_peer_that_changes_its_contact_all_the_time_costs_no_hedge_delay_each_time() -> None:
    chooser, delays = Chooser(), 0
    for at in range(0, 200, 2):
        choice = choose(chooser, float(at))
        if choice.kind is DIRECT:
            delays += choice.hedge_after_s != 0.0
            transfer(chooser, DIRECT, float(at), 1.5, Outcome.CANCELLED)
        transfer(chooser, IROH, float(at), 0.3)
        chooser.forget("a")
    assert delays == 1


def test_a_transfer_may_end_after_its_peer_is_forgotten_and_ends_once() -> None:
    chooser = Chooser(Limits(max_peers=2))
    token = chooser.began("a", DIRECT, SIZE, 0.0)
    for peer in ("b", "c", "d"):
        transfer(chooser, DIRECT, 0.0, peer=peer)
    chooser.ended(token, 1.0, ARRIVED)
    assert set(chooser.summary("a")) == {STORE}
    with pytest.raises(ValueError, match="ended before"):
        chooser.ended(token, 1.0, ARRIVED)


def test_the_memory_of_thousands_of_peers_is_bounded() -> None:
    chooser = Chooser()
    tracemalloc.start()
    for number in range(LIMITS.max_peers + 1000):
        for kind in BOTH:
            for at in range(40 if number < 200 else 2):
                transfer(chooser, kind, float(at), 0.1 + at / 1000, peer=f"peer {number}")
        if number == 200:
            full = tracemalloc.get_traced_memory()[0] / 200
    peers = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert full < 8_000
    assert peers < full * LIMITS.max_peers


def test_a_summary_changes_nothing_and_says_what_is_measured() -> None:
    chooser = known(Chooser(), {DIRECT: 0.1})
    assert set(chooser.summary("nobody")) == {STORE}
    found = chooser.summary("a")[DIRECT]
    assert (found.measured, found.under_way, found.broken) == (20, 0, False)
