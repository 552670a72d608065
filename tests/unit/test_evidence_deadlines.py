"""Evidence has one deadline for all validators, by size and by the line that the miner has shown."""

from __future__ import annotations

import pytest

from iota.model.layout import count, run_shapes
from iota.model.snapshot_time import LINE_SHARE, least_deadline_s, storing_s
from iota.objects import frames_bytes, planned_frames, snapshot_bytes
from iota.protocol.events import EvidenceMissed, EvidenceReady, EvidenceRequest
from iota.protocol.frames import EvidenceItem, StoredObject
from iota.protocol.messages import (
    EvidenceStored,
    EvidenceWanted,
    Reveal,
    Role,
)
from iota.protocol.records import Word
from orchestrator.coordinator import Resumed, StoreAway, StoreBack
from orchestrator.coordinator.evidence import FLOOR_SHARE, max_wanted
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.membership import Joined
from orchestrator.coordinator.outages import RETURN_S
from tests.support.coordinators import Driven
from tests.support.orchestrators import join_request
from tests.support.sealed_runs import sealed_run
from tests.support.small_spec import small_spec
from validator.core.core import FILING_SHARE


def _ask(driven: Driven, validator: Member, miner: Member, version: int = 1) -> EvidenceRequest:
    """The request that reaches the miner."""
    driven.news(miner)
    driven.say(
        validator,
        reports=[EvidenceWanted(epoch=0, miner=miner.hotkey, item=EvidenceItem.SNAPSHOT, version=version)],
    )
    [request] = [event for event in driven.news(miner) if isinstance(event, EvidenceRequest)]
    return request


def _store(driven: Driven, miner: Member, version: int = 1) -> None:
    stored = StoredObject(key="k", digest="1" * 64, size=1)
    driven.say(
        miner, reports=[EvidenceStored(epoch=0, item=EvidenceItem.SNAPSHOT, version=version, stored=stored)]
    )


def _told(driven: Driven, validator: Member) -> list[type]:
    kinds = (EvidenceReady, EvidenceMissed)
    return [type(event) for event in driven.news(validator) if isinstance(event, kinds)]


def _floor_s(driven: Driven) -> float:
    return driven.coordinator.spec.audit.deadline_s * FLOOR_SHARE


def test_a_quick_line_has_the_floor() -> None:
    driven, miner, validator = sealed_run()
    assert _ask(driven, validator, miner).deadline == pytest.approx(driven.now + _floor_s(driven))


def test_a_large_snapshot_has_a_deadline_that_fits_and_that_of_several_is_their_sum() -> None:
    driven, miner, validator = sealed_run(line=1.0)
    seconds = 100 * _floor_s(driven)
    miner.line = snapshot_bytes(driven.coordinator.spec, miner.stage) / seconds
    first, second = (_ask(driven, validator, miner, version).deadline for version in (0, 1))
    assert first == pytest.approx(driven.now + seconds / LINE_SHARE)
    assert second == pytest.approx(driven.now + 2 * seconds / LINE_SHARE)
    driven.wait(seconds)
    assert _told(driven, validator) == []


def test_who_is_slow_with_its_pseudo_gradient_has_no_more_time_than_the_runs_line_needs() -> None:
    """Else its snapshots would be due after validators have given up."""
    driven, miner, validator = sealed_run(upload_s=5.0)
    assert 0 < miner.line < driven.coordinator.spec.audit.line
    assert _ask(driven, validator, miner).deadline == pytest.approx(driven.now + _floor_s(driven))


@pytest.mark.parametrize("pipeline", ["sync", "delayed"])
def test_what_one_draw_demands_is_due_before_validators_give_up(pipeline: str) -> None:
    spec = small_spec(
        schedule={"pipeline": pipeline, "steps": 100}, optimizer={"lr": 1e-2}, audit={"line": 1.0}
    )
    of_parameter = 12 if pipeline == "sync" else 16
    largest = of_parameter * max(count(run_shapes(spec, stage)) for stage in range(spec.layout.stages))
    segments = 2 + 1  # of two windows, and the validator's own; and the last version
    steps = segments * spec.audit.commit_every + spec.audit.ops  # the store may have lost their frames
    size = (2 * segments + 1) * largest + steps * frames_bytes(spec, planned_frames(spec))
    assert storing_s(size, spec.audit.line) < FILING_SHARE * least_deadline_s(spec)


def test_a_line_is_shown_by_the_pseudo_gradients_that_were_stored() -> None:
    driven, miner, _ = sealed_run()
    assert miner.line == 0.0  # stored in no time at all by the clock of this test: nothing is learnt
    driven = Driven.training(driven.coordinator.spec)
    for index in range(2):
        driven.run_microbatch(0, index)
    driven.now += 4.0
    member = driven.state.miners()[0]
    driven.give(member)
    assert member.line == pytest.approx(sum(driven.state.part_bytes[member.stage]) / 4.0)


def test_a_missed_deadline_is_one_fact_for_all_validators_also_for_one_that_asks_later() -> None:
    driven, miner, first = sealed_run()
    _ask(driven, first, miner)
    driven.wait(_floor_s(driven) + 1)
    second = driven.join(10, Role.VALIDATOR)
    driven.say(second, reports=[Reveal(epoch=0, link="2" * 64)])
    driven.say(
        second, reports=[EvidenceWanted(epoch=0, miner=miner.hotkey, item=EvidenceItem.SNAPSHOT, version=1)]
    )
    _store(driven, miner)  # too late: what was decided stands
    for validator in (first, second):
        assert _told(driven, validator) == [EvidenceMissed]
    assert "was not stored by the deadline" in driven.state.incidents.named[-1]


def test_a_snapshot_in_time_is_one_fact_too() -> None:
    driven, miner, validator = sealed_run()
    deadline = _ask(driven, validator, miner).deadline
    _store(driven, miner)
    driven.wait(deadline - driven.now + 1)
    assert _told(driven, validator) == [EvidenceReady]


def test_no_deadline_passes_while_the_store_is_away_and_nobody_is_named() -> None:
    driven, miner, validator = sealed_run()
    deadline = _ask(driven, validator, miner).deadline
    driven.coordinator.apply(StoreAway(at=driven.now))
    assert "object store" in str(driven.coordinator.status()["waiting"])
    driven.wait(deadline - driven.now + 10)
    assert _told(driven, validator) == []
    driven.coordinator.apply(StoreBack(at=driven.now))
    driven.wait(1)
    assert _told(driven, validator) == []
    assert not any(member.hotkey in line for member in driven.state.miners() for line in _named(driven))
    driven.wait(_floor_s(driven) + RETURN_S + 1)
    assert _told(driven, validator) == [EvidenceMissed]


def test_no_deadline_passes_while_the_orchestrator_is_away() -> None:
    driven, miner, validator = sealed_run()
    deadline = _ask(driven, validator, miner).deadline
    driven.now = deadline + 100
    driven.coordinator.apply(Resumed(at=driven.now))
    driven.wait(1)
    assert _told(driven, validator) == []


def test_a_miner_that_is_started_again_is_asked_again_with_the_same_deadline() -> None:
    driven, miner, validator = sealed_run()
    deadline = _ask(driven, validator, miner).deadline
    for receipts in (miner.receipts, 0):  # from its disk, and without its state
        request = join_request(receipts=receipts, epoch=0)
        driven.coordinator.apply(Joined(at=driven.now, hotkey=miner.hotkey, request=request))
        again = [event for event in driven.news(miner) if isinstance(event, EvidenceRequest)]
        assert [event.deadline for event in again] == [deadline]
    _store(driven, miner)
    assert _told(driven, validator) == [EvidenceReady]


def test_a_validator_asks_for_no_more_snapshots_than_a_draw_can_demand() -> None:
    driven, miner, validator = sealed_run(steps=100)
    for version in range(0, 101, 5):
        driven.say(
            validator,
            reports=[
                EvidenceWanted(epoch=0, miner=miner.hotkey, item=EvidenceItem.SNAPSHOT, version=version)
            ],
        )
    assert len(miner.owed) == max_wanted(driven.state, EvidenceItem.SNAPSHOT) < 21


def test_only_versions_that_the_miner_has_committed_to_can_be_wanted() -> None:
    driven, miner, validator = sealed_run(steps=7)
    before = driven.state.totals.unfit
    for version in range(9):
        driven.say(
            validator,
            reports=[
                EvidenceWanted(epoch=0, miner=miner.hotkey, item=EvidenceItem.SNAPSHOT, version=version)
            ],
        )
    assert miner.owed.keys() == {(0, EvidenceItem.SNAPSHOT, version) for version in (0, 5, 7)}
    assert driven.state.totals.unfit == before + 6


def test_a_version_whose_commit_is_not_in_the_record_is_owed_to_nobody() -> None:
    """A miner that stopped before cannot store it, and its life tells which versions it had."""
    driven, miner, validator = sealed_run()
    epoch = driven.state.epochs[0]
    epoch.committed[miner.hotkey] = (0, 0)
    driven.say(
        validator,
        reports=[EvidenceWanted(epoch=0, miner=miner.hotkey, item=EvidenceItem.SNAPSHOT, version=1)],
    )
    assert miner.owed == {}
    del epoch.committed[miner.hotkey]
    driven.say(
        validator,
        reports=[EvidenceWanted(epoch=0, miner=miner.hotkey, item=EvidenceItem.SNAPSHOT, version=0)],
    )
    assert miner.owed == {}


def _want_frames(driven: Driven, validator: Member, miner: Member, step: int) -> None:
    wanted = EvidenceWanted(epoch=0, miner=miner.hotkey, item=EvidenceItem.FRAMES, version=step)
    driven.say(validator, reports=[wanted])


def test_frames_have_the_time_of_the_ops_that_the_miner_has_receipted() -> None:
    driven, miner, validator = sealed_run(line=1.0)
    spec, seconds = driven.coordinator.spec, 100 * _floor_s(sealed_run()[0])
    ops = 2 * spec.schedule.microbatches  # a FORWARD and a BACKWARD of each microbatch, at stage 0
    miner.line = frames_bytes(spec, 2 * ops) / seconds
    _want_frames(driven, validator, miner, 0)
    [request] = [event for event in driven.news(miner) if isinstance(event, EvidenceRequest)]
    assert (request.item, request.version) == (EvidenceItem.FRAMES, 0)
    assert request.deadline == pytest.approx(driven.now + seconds / LINE_SHARE)


def test_frames_and_a_snapshot_of_the_same_number_are_two_things() -> None:
    driven, miner, validator = sealed_run(steps=2)
    _ask(driven, validator, miner, 0)
    _want_frames(driven, validator, miner, 0)
    assert len(miner.owed) == 2
    _store(driven, miner, 0)
    assert miner.owed.keys() == {(0, EvidenceItem.FRAMES, 0)}
    driven.wait(_floor_s(driven) + 1)
    assert _told(driven, validator) == [EvidenceReady, EvidenceMissed]
    assert "its frames of step 0 of epoch 0 were not stored" in driven.state.incidents.named[-1]


def test_a_validator_asks_for_the_frames_of_each_step_with_receipts_once() -> None:
    driven, miner, validator = sealed_run(steps=3)
    for step in (0, 1, 2, 2, 3):
        _want_frames(driven, validator, miner, step)
    assert miner.owed.keys() == {(0, EvidenceItem.FRAMES, step) for step in range(3)}
    assert len(miner.owed) == max_wanted(driven.state, EvidenceItem.FRAMES)
    assert driven.state.totals.unfit == 2


def test_no_frames_are_owed_by_who_has_no_receipts_of_the_step() -> None:
    driven, _, validator = sealed_run()
    late = driven.join(11)
    _want_frames(driven, validator, late, 0)
    assert late.owed == {}


def test_frames_are_owed_for_a_word_in_the_record_too() -> None:
    driven, _, validator = sealed_run()
    late = driven.join(11)
    epoch = driven.state.epochs[0]
    epoch.stages[late.hotkey] = late.stage
    word = Word(
        hotkey=late.hotkey,
        epoch=0,
        step=0,
        microbatch=0,
        attempt=0,
        stage=late.stage,
        inputs=(),
        signature="0" * 128,
    )
    epoch.words[late.hotkey] = (word,)
    _want_frames(driven, validator, late, 0)
    assert late.owed.keys() == {(0, EvidenceItem.FRAMES, 0)}


def test_nothing_is_owed_once_the_audits_are_closed() -> None:
    driven, miner, validator = sealed_run()
    _ask(driven, validator, miner)
    from orchestrator.coordinator.evidence import close

    close(driven.state, 0)
    assert miner.owed == {}
    driven.wait(_floor_s(driven) + 1)
    assert _told(driven, validator) == []


def _named(driven: Driven) -> list[str]:
    return list(driven.state.incidents.named)
