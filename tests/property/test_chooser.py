"""The choice of links, in virtual time, over links that die, stall, slow down, lie, flap and come back."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota.wire.chooser import Chooser, Limits, Outcome
from iota.wire.link import LinkKind
from tests.support.virtual_links import Behaviour, Phase, Uplink, VirtualLink, steady
from tests.support.virtual_sender import FRAME_BYTES, OneLink, VirtualSender

DIRECT, IROH, STORE = LinkKind.DIRECT, LinkKind.IROH, LinkKind.STORE
BAD = sorted(set(Behaviour) - {Behaviour.GOOD})
FACTOR = 2.0
"""A sender takes at most so many times what the link does that was best in hindsight."""
CHANGE_S = 4.0
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


def sender_over(
    case: dict[LinkKind, list[Phase]], line: float = inf, chooser: Chooser | None = None
) -> VirtualSender:
    """A sender over links that go through these phases, with a line of `line` bytes a second."""
    uplink = Uplink(line)
    links = {kind: VirtualLink(phases, uplink) for kind, phases in case.items()}
    return VirtualSender(links, chooser or Chooser())


@given(case=whole_outages, line=lines, together=st.integers(1, 4), gap_s=st.sampled_from([0.0, 0.3, 2.0]))
@settings(max_examples=150, deadline=None)
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
    assert sender.begun == sender.ended
    assert all(link.under_way == 0 for link in sender.chooser.summary("peer").values())


@given(case=cases, line=lines, gap_s=st.sampled_from([0.0, 0.3, 2.0]))
@settings(max_examples=150, deadline=None)
def test_the_time_is_near_that_of_the_link_that_was_best_in_hindsight(
    case: dict[LinkKind, list[Phase]], line: float, gap_s: float
) -> None:
    def seconds(sender: VirtualSender) -> float:
        return sum(one.seconds for one in sender.send(60, gap_s=gap_s))

    best = min(seconds(sender_over({kind: case[kind]}, line, OneLink(kind))) for kind in case)
    changes = sum(len(phases) for phases in case.values())
    assert seconds(sender_over(case, line)) <= FACTOR * best + CHANGE_S * changes


@given(
    how=st.sampled_from(BAD),
    good_s=st.floats(5.0, 60.0),
    away_s=st.floats(0.5, 300.0),
    gap_s=st.sampled_from([0.2, 1.0, 2.7]),
    iroh=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_the_best_link_is_used_again_when_it_is_back(
    how: Behaviour, good_s: float, away_s: float, gap_s: float, iroh: bool
) -> None:
    links = {
        DIRECT: VirtualLink([Phase(good_s), Phase(good_s + away_s, how), Phase(inf)]),
        STORE: steady(0.1, 20e6),
    }
    sender = VirtualSender({**links, IROH: steady(0.1, 10e6)} if iroh else links)
    limits = Limits()
    pause_s = min(limits.max_pause_s, away_s + limits.first_pause_s)
    probe_s = limits.longest_s(FRAME_BYTES) if how is Behaviour.SILENT else 0.0
    frames = int((good_s + away_s + pause_s + probe_s) / gap_s) + COMES_BACK + 5
    sent = sender.send(frames, gap_s=gap_s)
    after = [one for one in sent if one.begun_s >= good_s + away_s + pause_s + probe_s]
    assert [one.by for one in after[COMES_BACK - 1 :]] == [DIRECT] * len(after[COMES_BACK - 1 :])
