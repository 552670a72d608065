"""Owners and their workers in the coordinator: what a revocation moves, and what it leaves as it was."""

from __future__ import annotations

from iota.identity.certificates import revoke
from iota.protocol.events import EvidenceMissed, EvidenceRequest, Reroute
from iota.protocol.frames import EvidenceItem
from iota.protocol.messages import (
    AuditKind,
    EvidenceWanted,
    Outcome,
    Reveal,
    Role,
    Verdict,
    WeightsSet,
)
from orchestrator.coordinator import Coordinator, Joined, Member, Revoked
from tests.support.coordinators import LIMITS, Driven
from tests.support.orchestrators import join_request, make_spec
from tests.support.workers import OWNER, RIVAL, certified_join, key


def training(replicas: int = 1) -> Driven:
    """A run in training whose miners all work for one owner."""
    spec = make_spec(steps=1, microbatches=2)
    spec = spec.model_copy(update={"layout": spec.layout.model_copy(update={"replicas": replicas})})
    driven = Driven(Coordinator(spec, LIMITS))
    for number in range(spec.layout.stages * replicas):
        worker = key(number + 1)
        request = certified_join(spec.id, worker)
        driven.coordinator.apply(Joined(at=driven.now, hotkey=worker.ss58, request=request))
    driven.hold_base()
    return driven


def sealed() -> Driven:
    """The same, with its epoch sealed."""
    driven = training()
    for index in range(2):
        driven.run_microbatch(0, index)
    driven.give_all()
    driven.draw_mergers()
    driven.merge_all()
    driven.seal()
    return driven


def take_out(driven: Driven, member: Member) -> Revoked:
    entry = Revoked(at=driven.now, revocation=revoke(OWNER, member.hotkey, driven.state.spec.id))
    driven.coordinator.apply(entry)
    assert not driven.state.incidents.internal
    return entry


def test_the_open_work_of_a_revoked_worker_goes_to_others() -> None:
    driven = training(replicas=2)
    worker, other = driven.state.miners(0)
    had = set(worker.work)
    take_out(driven, worker)
    assert had
    assert not worker.work
    assert had <= set(other.work)
    moved = [event for event in driven.news(other) if isinstance(event, Reroute)]
    assert {event.replaces for event in moved} == {worker.hotkey}
    assert driven.state.roster.live == [1, 2]


def test_work_that_a_revocation_moves_does_not_lower_the_timeliness_of_the_worker() -> None:
    driven = training(replicas=2)
    worker = driven.state.miners(0)[0]
    assert worker.work
    take_out(driven, worker)
    record = driven.coordinator.member_record(worker.hotkey)
    assert record is not None
    assert record.withdrawn == 0
    assert [incident.text for incident in record.incidents][-1:] == ["its owner revoked its key"]
    assert not any("silent" in incident.text for incident in record.incidents)


def test_what_a_worker_owes_is_decided_at_once_when_its_owner_revokes_it() -> None:
    driven = sealed()
    validator = driven.join(9, Role.VALIDATOR)
    worker = driven.state.miners(1)[0]
    wanted = [
        EvidenceWanted(epoch=0, miner=worker.hotkey, item=EvidenceItem.SNAPSHOT, version=version)
        for version in (0, 1)
    ]
    driven.say(validator, reports=[Reveal(epoch=0, link="1" * 64), wanted[1]])
    driven.news(validator)
    take_out(driven, worker)
    driven.say(validator, reports=[wanted[0]])
    told = [event for event in driven.news(validator) if isinstance(event, EvidenceMissed)]
    assert [(event.version, event.revoked) for event in told] == [(1, True), (0, True)]
    assert not worker.owed
    assert not any(isinstance(e, EvidenceRequest) and e.version == 0 for e in driven.news(worker))


def test_what_a_revoked_worker_did_stands_under_its_owner() -> None:
    driven = sealed()
    before = driven.record(0)
    worker = driven.state.miners(1)[0]
    take_out(driven, worker)
    record = driven.record(0)
    assert record == before
    (found,) = [miner for miner in record.miners if miner.hotkey == worker.hotkey]
    assert (found.owner, found.certificate) == (OWNER.ss58, worker.certificate)
    assert found.last_receipt - found.first_receipt + 1 == worker.receipts > 2


def test_a_second_revocation_and_a_rivals_change_nothing() -> None:
    driven = training()
    worker = driven.state.miners(0)[0]
    rival = Revoked(at=driven.now, revocation=revoke(RIVAL, worker.hotkey, driven.state.spec.id))
    driven.coordinator.apply(rival)
    assert worker.live
    first = take_out(driven, worker)
    take_out(driven, worker)
    record = driven.coordinator.member_record(worker.hotkey)
    assert record is not None
    assert record.revocation == first.revocation
    assert [incident.text for incident in record.incidents] == ["it joined", "its owner revoked its key"]


def test_an_owners_weight_is_on_record_at_each_of_its_workers() -> None:
    driven = training()
    request = join_request()
    driven.coordinator.apply(Joined(at=driven.now, hotkey=OWNER.ss58, request=request))
    validator = driven.join(9, Role.VALIDATOR)
    weights = WeightsSet(block=5, weights={OWNER.ss58: 0.25}, compute_share=0.1)
    driven.say(validator, reports=[weights])
    for hotkey in (OWNER.ss58, key(1).ss58, key(2).ss58):
        record = driven.coordinator.member_record(hotkey)
        assert record is not None
        assert [posted.weight for posted in record.weights] == [0.25]


def test_a_fail_of_one_worker_is_on_record_at_each_worker_of_its_owner() -> None:
    driven = sealed()
    validator = driven.join(9, Role.VALIDATOR)
    failed, other = driven.state.miners()[:2]
    said = [
        Verdict(epoch=0, miner=failed.hotkey, audit=AuditKind.OP, outcome=outcome, seq=seq, profile="exact")
        for seq, outcome in enumerate((Outcome.PASS, Outcome.FAIL, Outcome.UNDELIVERED), 1)
    ]
    driven.say(validator, reports=[Reveal(epoch=0, link="1" * 64), *said])
    for member in (failed, other):
        record = driven.coordinator.member_record(member.hotkey)
        assert record is not None
        assert [(c.miner, c.outcome) for c in record.charged] == [
            (failed.hotkey, Outcome.FAIL),
            (failed.hotkey, Outcome.UNDELIVERED),
        ]
        assert len(record.failed) == (member is failed)
