"""What members say again gives no entry of the journal, and news do."""

from __future__ import annotations

import pytest

from iota.codec.shapes import payload_size
from iota.objects import BaseKey, DeltaKey, part_count
from iota.protocol.frames import Direction, EvidenceItem
from iota.protocol.messages import (
    AuditsDone,
    BaseStored,
    Delta,
    EvidenceWanted,
    Ready,
    Reveal,
    Role,
    WeightsSet,
)
from tests.unit.test_intake import SPEC, Desk, notice, stored


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_frame_is_journaled_once_whatever_happens_to_its_sender(desk: Desk) -> None:
    frames = (notice(0, Direction.FORWARD, payload_size(SPEC) + 1),)
    assert desk.take(desk.first, frames=frames)
    assert desk.take(desk.first, frames=frames) is None
    more = (*frames, notice(0, Direction.FORWARD, payload_size(SPEC) + 1, microbatch=1))
    said = desk.take(desk.first, frames=more)
    assert said is not None
    assert said.frames == more[1:]
    desk.driven.lose(desk.first)
    assert desk.exchange(desk.first, frames=frames) is None


def test_what_changes_nothing_gives_no_entry_whatever_its_content(desk: Desk) -> None:
    keys = [DeltaKey(SPEC.id, 0, 0, desk.first.hotkey, n) for n in range(part_count(SPEC, 0))]
    base = [stored(BaseKey(SPEC.id, 1, 0, n, desk.first.hotkey)) for n in range(part_count(SPEC, 0))]
    for size in (15, 16):
        nothing = (
            Ready(epoch=0, digest=f"{size:064x}"),
            Ready(epoch=1, digest=f"{size:064x}"),
            Delta(epoch=0, parts=tuple(stored(key, size) for key in keys)),
            BaseStored(epoch=1, digest=f"{size:064x}", parts=tuple(base)),
        )
        assert desk.exchange(desk.first, reports=nothing) is None
        audits = (
            Reveal(epoch=0, link=f"{size:064x}"),
            EvidenceWanted(epoch=0, miner=desk.first.hotkey, item=EvidenceItem.SNAPSHOT, version=1),
            AuditsDone(epoch=0),
        )
        assert desk.exchange(desk.validator, reports=audits) is None


def test_weights_are_journaled_again_when_they_are_of_a_newer_block_that_there_is(desk: Desk) -> None:
    first, later, changed, ahead = (
        WeightsSet(block=block, weights={desk.first.hotkey: 0.5}, compute_share=share)
        for block, share in ((7, 0.1), (8, 0.1), (8, 0.2), (500, 0.1))
    )
    assert desk.take(desk.validator, reports=(first,))
    assert desk.take(desk.validator, reports=(first,)) is None
    assert desk.take(desk.validator, reports=(later,))
    assert desk.take(desk.validator, reports=(changed,)) is None
    assert desk.take(desk.validator, reports=(ahead,)) is None


def test_news_that_was_not_journaled_is_taken_again(desk: Desk) -> None:
    reports = (WeightsSet(block=7, weights={}, compute_share=0.1),)
    for _ in range(2):  # the journal was full
        assert desk.exchange(desk.validator, reports=reports)


def test_one_members_news_is_not_anothers(desk: Desk) -> None:
    other = desk.driven.join(10, Role.VALIDATOR)
    for member in (desk.validator, other):
        assert desk.take(member, reports=(WeightsSet(block=7, weights={}, compute_share=0.1),))
