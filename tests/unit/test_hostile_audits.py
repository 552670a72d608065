"""What a validator says again and again about an epoch's audits gives one entry, and one answer."""

from __future__ import annotations

import pytest

from iota.protocol.events import Accusation
from iota.protocol.frames import EvidenceItem
from iota.protocol.messages import (
    AuditKind,
    AuditsDone,
    EvidenceWanted,
    ExchangeRequest,
    Outcome,
    Report,
    Reveal,
    Role,
    Verdict,
)
from orchestrator.coordinator.auditing import MAX_VERDICTS
from orchestrator.intake import Intake
from tests.support.sealed_runs import sealed_run


def test_a_snapshot_that_is_wanted_again_and_again_gives_one_request_and_no_more_events() -> None:
    driven, miner, validator = sealed_run()
    wanted = EvidenceWanted(epoch=0, miner=miner.hotkey, item=EvidenceItem.SNAPSHOT, version=1)
    driven.say(validator, reports=[wanted])
    before = (miner.events.next_seq, validator.events.next_seq)
    driven.say(validator, reports=[wanted] * 100)
    assert (miner.events.next_seq, validator.events.next_seq) == before
    intake = Intake(driven.coordinator)
    assert intake.exchange(validator.hotkey, ExchangeRequest(cursor=0, reports=(wanted,)), driven.now) is None


def test_verdicts_beyond_the_bound_and_repeats_give_no_entry() -> None:
    driven, miner, validator = sealed_run()
    intake = Intake(driven.coordinator)
    for seq in range(1, MAX_VERDICTS + 3):
        verdict = Verdict(
            epoch=0, miner=miner.hotkey, audit=AuditKind.OP, outcome=Outcome.PASS, seq=seq, profile="exact"
        )
        request = ExchangeRequest(cursor=0, reports=(verdict,))
        said = intake.exchange(validator.hotkey, request, driven.now)
        assert (said is not None) == (seq <= MAX_VERDICTS)
        driven.say(validator, reports=[verdict])
        assert intake.exchange(validator.hotkey, request, driven.now) is None
    assert driven.state.audits.outcomes[Outcome.PASS] == MAX_VERDICTS


@pytest.mark.parametrize("audit", [AuditKind.OP, AuditKind.SEGMENT])
def test_a_hidden_segment_is_told_to_the_others_and_charged_to_nobody(audit: AuditKind) -> None:
    driven, miner, validator = sealed_run()
    other = driven.join(10, Role.VALIDATOR)
    driven.say(other, reports=[Reveal(epoch=0, link="2" * 64), AuditsDone(epoch=0)])
    driven.news(other)
    verdict = Verdict(epoch=0, miner=miner.hotkey, audit=audit, outcome=Outcome.UNSHOWN, seq=4, profile="")
    driven.say(validator, reports=[verdict])
    told = [event for event in driven.news(other) if isinstance(event, Accusation)]
    assert [each.verdict for each in told] == [verdict] * (audit is AuditKind.SEGMENT)
    assert (other.hotkey in driven.state.epochs[0].done) == (audit is AuditKind.OP)
    assert driven.state.owners.charged == {}
    assert driven.coordinator.status()["audits"]["inconclusive"] == 1


def test_what_comes_with_a_link_counts_with_it() -> None:
    driven, miner, _ = sealed_run()
    other = driven.join(10, Role.VALIDATOR)
    reports: tuple[Report, ...] = (
        Reveal(epoch=0, link="2" * 64),
        EvidenceWanted(epoch=0, miner=miner.hotkey, item=EvidenceItem.SNAPSHOT, version=1),
        AuditsDone(epoch=0),
    )
    request = ExchangeRequest(cursor=0, reports=reports)
    said = Intake(driven.coordinator).exchange(other.hotkey, request, driven.now)
    assert said is not None
    assert said.reports == reports
    driven.coordinator.apply(said)
    assert other.hotkey in driven.state.epochs[0].done
    assert Intake(driven.coordinator).exchange(other.hotkey, request, driven.now) is None
