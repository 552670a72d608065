"""The choice of links, in virtual time, over links that die, stall, slow down, lie, flap and come back."""

from __future__ import annotations

from dataclasses import replace
from math import inf, log2

from hypothesis import example, given, settings
from hypothesis import strategies as st

from iota.wire.chooser import Chooser, Limits
from iota.wire.link import LinkKind
from tests.support.virtual_links import Behaviour, Phase, Uplink, VirtualLink, steady
from tests.support.virtual_sender import FRAME_BYTES, OneLink, Sent, VirtualSender

LIMITS = Limits()
DIRECT, IROH, STORE = LinkKind.DIRECT, LinkKind.IROH, LinkKind.STORE
BAD = sorted(set(Behaviour) - {Behaviour.GOOD})
FACTOR = 4.0
"""A sender takes at most so many times what the link does that was best in hindsight."""
CHANGE_S = 3.0
"""And so many seconds for each change of a link: a hedge delay, and what follows until it is left."""
COMES_BACK = 3
"""Frames, after the pause between probes, of which the last goes by a link that has come back."""


@st.composite
def phases(draw: st.DrawFn, changes: int = 5) -> list[Phase]:
    """What a link does over time; in the end it is good."""
    until, out = 0.0, []
    for _ in range(draw(st.integers(0, changes))):
        until += draw(st.floats(0.5, 40.0))
        out.append(
            Phase(
                until,
                draw(st.sampled_from([Behaviour.GOOD, Behaviour.GOOD, *BAD])),
                draw(st.floats(0.001, 0.3)),
                draw(st.sampled_from([2e4, 2e5, 1e6, 5e6, 2e7, 1e8])),
            )
        )
    return [*out, Phase(inf, Behaviour.GOOD, draw(st.floats(0.001, 0.3)), draw(st.floats(2e5, 1e8)))]


cases = st.fixed_dictionaries(
    {
        DIRECT: phases(),
        IROH: phases(),
        STORE: st.builds(
            lambda latency, rate: [Phase(inf, Behaviour.GOOD, latency, rate)],
            st.floats(0.05, 0.5),
            st.floats(1e6, 3e7),
        ),
    }
)
whole_outages = st.fixed_dictionaries({DIRECT: phases(), IROH: phases(), STORE: phases()})
lines = st.sampled_from([inf, 2.5e6, 1.2e7])


def until_received(one: Sent) -> float:
    """Seconds until its receiver has a frame: what goes by the store is fetched after it was announced."""
    assert one.by is not None
    prior = Limits().priors[one.by]
    return prior.transfers * one.seconds + prior.extra_s


def sender_over(
    case: dict[LinkKind, list[Phase]], line: float = inf, chooser: Chooser | None = None
) -> VirtualSender:
    """A sender over links that go through these phases, with a line of `line` bytes a second."""
    uplink = Uplink(line)
    links = {kind: VirtualLink(phases, uplink) for kind, phases in case.items()}
    return VirtualSender(links, chooser or Chooser())


@given(case=whole_outages, line=lines, together=st.integers(1, 4), gap_s=st.sampled_from([0.0, 0.3, 2.0]))
@settings(max_examples=120, deadline=None)
def test_every_frame_arrives_and_counts_once_and_every_transfer_ends(
    case: dict[LinkKind, list[Phase]], line: float, together: int, gap_s: float
) -> None:
    sender = sender_over(case, line)
    sent = sender.send(40, together=together, gap_s=gap_s)
    sender.settle()
    arrived = {frame for link in sender.links.values() for frame in link.arrived}
    assert arrived == set(range(40))
    assert [one.acknowledged for one in sent] == [1] * 40
    assert max(one.most_running for one in sent) <= 2
    assert all(len(one.transfers) <= one.rounds * len(case) for one in sent)
    assert sender.begun == sender.ended
    assert all(link.under_way == 0 for link in sender.chooser.summary("peer").values())


THREE_STEADY = {
    LinkKind.DIRECT: [Phase(inf, Behaviour.GOOD, 0.25, 200e3)],
    LinkKind.IROH: [Phase(inf, Behaviour.GOOD, 0.0625, 404_598.0)],
    LinkKind.STORE: [Phase(inf, Behaviour.GOOD, 0.5, 1e6)],
}
"""The store's PUT takes half as long as the best link, and with the GET after it as long."""


@given(case=cases, line=lines, gap_s=st.sampled_from([0.0, 0.3, 2.0]))
@example(case=THREE_STEADY, line=inf, gap_s=0.0)
@settings(max_examples=120, deadline=None)
def test_the_time_is_near_that_of_the_link_that_was_best_in_hindsight(
    case: dict[LinkKind, list[Phase]], line: float, gap_s: float
) -> None:
    def seconds(sender: VirtualSender) -> float:
        return sum(until_received(one) for one in sender.send(60, gap_s=gap_s))

    best = min(seconds(sender_over({kind: case[kind]}, line, OneLink(kind))) for kind in case)
    changes = sum(len(phases) for phases in case.values())
    assert seconds(sender_over(case, line)) <= FACTOR * best + CHANGE_S * changes


@given(
    how=st.sampled_from(BAD),
    good_s=st.floats(5.0, 60.0),
    away_s=st.floats(0.5, 300.0),
    gap_s=st.sampled_from([0.5, 2.7, 10.0]),
    iroh=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_the_best_link_is_used_again_when_it_is_back(
    how: Behaviour, good_s: float, away_s: float, gap_s: float, iroh: bool
) -> None:
    links = {
        DIRECT: VirtualLink([Phase(good_s), Phase(good_s + away_s, how), Phase(inf)]),
        STORE: steady(0.1, 20e6),
    }
    sender = VirtualSender({**links, IROH: steady(0.1, 10e6)} if iroh else links)
    pause_s = min(LIMITS.max_pause_s, away_s + LIMITS.first_pause_s)
    probe_s = LIMITS.longest_s(FRAME_BYTES) if how is Behaviour.SILENT else 0.0
    frames = int((good_s + away_s + pause_s + probe_s) / gap_s) + COMES_BACK + 5
    sent = sender.send(frames, gap_s=gap_s)
    after = [one for one in sent if one.begun_s >= good_s + away_s + pause_s + probe_s]
    assert [one.by for one in after[COMES_BACK - 1 :]] == [DIRECT] * len(after[COMES_BACK - 1 :])


@given(
    how=st.sampled_from([Behaviour.RESETS, Behaviour.STALLS, Behaviour.SILENT]),
    iroh=st.booleans(),
    frames=st.integers(1, 300),
)
@settings(max_examples=40, deadline=None)
def test_a_first_link_that_is_dead_costs_one_hedge_delay_and_ever_rarer_probes(
    how: Behaviour, iroh: bool, frames: int
) -> None:
    rest = {IROH: steady(0.1, 10e6)} if iroh else {}
    links = {DIRECT: VirtualLink([Phase(inf, how)]), **rest, STORE: steady(0.1, 20e6)}
    sender = VirtualSender(links)
    sent = sender.send(frames, gap_s=1.0)
    alone = steady_s(0.1, 10e6) if iroh else steady_s(0.1, 20e6)
    assert sum(one.seconds for one in sent) <= frames * alone + LIMITS.first_hedge_s + 0.1
    to_the_dead = [one for one in sent if DIRECT in one.transfers]
    assert len(to_the_dead) <= LIMITS.failures_to_break + 2 + log2(frames)


def steady_s(latency_s: float, bytes_per_s: float) -> float:
    """A frame's time on a steady link."""
    return latency_s + FRAME_BYTES / bytes_per_s


def test_without_hedges_a_link_that_goes_silent_holds_a_frame_until_its_deadline() -> None:
    def slowest(hedges: bool) -> float:
        links = {DIRECT: VirtualLink([Phase(20.0), Phase(inf, Behaviour.SILENT)]), STORE: steady(0.1, 20e6)}
        return max(one.seconds for one in VirtualSender(links, hedges=hedges).send(40, gap_s=1.0))

    assert slowest(hedges=True) < 1.0
    assert slowest(hedges=False) > LIMITS.min_deadline_s


def test_without_a_breaker_a_link_that_resets_is_tried_for_nearly_every_frame() -> None:
    def tries(limits: Limits) -> int:
        links = {DIRECT: VirtualLink([Phase(20.0), Phase(inf, Behaviour.RESETS)]), STORE: steady(0.5, 1e6)}
        sent = VirtualSender(links, Chooser(limits)).send(100, gap_s=1.0)
        return sum(DIRECT in one.transfers for one in sent if one.begun_s >= 20.0)

    assert tries(LIMITS) < 12
    assert tries(replace(LIMITS, failures_to_break=1_000_000)) > 60


def test_without_probes_a_link_that_is_back_is_never_used_again() -> None:
    def last(limits: Limits) -> LinkKind | None:
        phases = [Phase(20.0), Phase(30.0, Behaviour.RESETS), Phase(inf)]
        links = {DIRECT: VirtualLink(phases), STORE: steady(0.1, 20e6)}
        return VirtualSender(links, Chooser(limits)).send(100, gap_s=1.0)[-1].by

    assert last(LIMITS) is DIRECT
    assert last(replace(LIMITS, first_pause_s=1e9, max_pause_s=1e9)) is STORE


def test_a_link_that_needs_long_to_dial_is_used_though_another_wins_its_first_frame() -> None:
    dial = [Phase(4.0, Behaviour.STALLS), Phase(inf, Behaviour.GOOD, 0.05, 30e6)]
    sender = VirtualSender({IROH: VirtualLink(dial), STORE: steady(0.1, 20e6)})
    sent = sender.send(20, gap_s=1.0)
    assert (sent[0].by, sent[-1].by) == (STORE, IROH)
