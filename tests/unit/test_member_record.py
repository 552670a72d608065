"""What the orchestrator has on record about a member: work, deadlines, audits, weights, why it is idle."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from iota.protocol.member_records import (
    EPOCHS_KEPT,
    RECENT_KEPT,
    EpochAudits,
    Incident,
    MemberRecord,
    MemberState,
    PostedWeights,
    Withdrawal,
)
from iota.protocol.messages import (
    AuditKind,
    AuditsDone,
    Outcome,
    Role,
    Verdict,
    WeightsSet,
)
from iota.protocol.receipts import OpKind
from iota.simulate.names import fake_hotkey
from orchestrator.coordinator import Resumed
from orchestrator.coordinator.auditing import MAX_AHEAD, WEIGHTS_PER_BLOCK
from orchestrator.coordinator.history import History
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Phase
from tests.support.coordinators import Driven
from tests.support.orchestrators import Running, make_spec, node, orchestrator, raw, until
from tests.support.sealed_runs import sealed_run
from tests.support.small_spec import small_spec


def record_of(driven: Driven, member: Member) -> MemberRecord:
    found = driven.coordinator.member_record(member.hotkey)
    assert found is not None
    return found


def verdict(miner: Member, seq: int, outcome: Outcome, reason: str = "") -> Verdict:
    return Verdict(
        epoch=0,
        miner=miner.hotkey,
        audit=AuditKind.OP,
        outcome=outcome,
        seq=seq,
        profile="exact",
        reason=reason,
    )


def test_work_is_counted_by_epoch_with_the_stage_s_share() -> None:
    driven = Driven.training(make_spec(steps=1, microbatches=2))
    for index in range(2):
        driven.run_microbatch(0, index)
    first, last = (record_of(driven, m).epochs[0] for m in driven.state.miners())
    assert (first.forward, first.backward, first.steps) == (2, 2, 1)
    assert (last.forward, last.backward) == (0, 2)
    assert first.tokens == first.stage_tokens == 2 * driven.state.spec.data.tokens
    assert (first.missed, first.withdrawn) == (0, 0)
    assert first.met > 0


def test_a_missed_deadline_is_on_record_with_why_it_is_idle_and_until_when() -> None:
    driven = Driven.training(make_spec())
    member = driven.state.miners()[0]
    driven.wait(60.0)
    found = record_of(driven, member)
    assert (found.state, found.epochs[0].missed) == (MemberState.LATE, 1)
    assert "missed its deadline" in found.why
    assert "next receipt" in found.until
    assert found.incidents[-1].text == "it missed a deadline"


def test_work_that_is_taken_from_a_member_is_on_record_with_why() -> None:
    for absent in (False, True):
        driven = Driven.training(small_spec(layout={"cuts": [1, 2], "replicas": 2}))
        member, other = driven.state.miners(0)
        if absent:
            driven.lose(member)
        else:
            driven.wait(60.0)
            driven.run_op(0, next(iter(other.work))[1], 0, OpKind.FORWARD)
            driven.wait(0.1)  # the other replica is on time again, and takes over
        found = record_of(driven, member)
        assert found.withdrawn == sum(found.withdrawals.values()) > 0
        assert set(found.withdrawals) == {Withdrawal.ABSENT if absent else Withdrawal.LATE}


def test_a_lost_and_a_left_member_are_told_apart() -> None:
    driven = Driven.training(make_spec())
    member = driven.state.miners()[0]
    driven.lose(member)
    assert record_of(driven, member).state is MemberState.LOST
    assert "next request" in record_of(driven, member).until


def test_verdicts_are_on_record_by_kind_validator_and_reason() -> None:
    driven, miner, validator = sealed_run()
    good, bad = verdict(miner, 1, Outcome.PASS), verdict(miner, 2, Outcome.FAIL, "another output")
    driven.say(validator, reports=[good, bad])
    found = record_of(driven, miner)
    assert found.audits == {AuditKind.OP: {Outcome.PASS: 1, Outcome.FAIL: 1}}
    [failed] = found.failed
    assert (failed.validator, failed.epoch, failed.reason) == (validator.hotkey, 0, "another output")
    [shown] = [m for m in driven.coordinator.status()["members"] if m["hotkey"] == miner.hotkey]
    assert {outcome: n for outcome, n in shown["audits"].items() if n} == {"pass": 1, "fail": 1}


def test_a_validator_s_audits_and_weights_are_on_record() -> None:
    driven, miner, validator = sealed_run()
    found = record_of(driven, validator)
    assert (found.state, found.judged[0].done) == (MemberState.WORKING, False)
    assert found.why == "it audits epoch 0"
    verdicts = [verdict(miner, 1, Outcome.PASS), verdict(miner, 2, Outcome.FAIL)]
    driven.say(validator, reports=[*verdicts, verdicts[0], AuditsDone(epoch=0)])
    driven.say(validator, reports=[WeightsSet(block=9, weights={miner.hotkey: 1.0}, compute_share=0.1)])
    found = record_of(driven, validator)
    assert found.judged == (
        EpochAudits(epoch=0, passed=1, failed=1, undelivered=0, inconclusive=0, done=True),
    )
    assert found.audits == {AuditKind.OP: {Outcome.PASS: 1, Outcome.FAIL: 1}}
    assert found.posted == PostedWeights(epoch=1, block=9, miners=1, compute_share=0.1)
    assert (found.state, found.until) == (MemberState.IDLE, "the merge of epoch 1")


def test_a_validator_that_has_not_revealed_its_draw_waits_for_the_block_that_draws() -> None:
    driven, _, _ = sealed_run()
    late = driven.join(8, Role.VALIDATOR)
    found = record_of(driven, late)
    seal = driven.state.epochs[0].seal
    assert seal is not None
    assert (found.state, found.why) == (
        MemberState.IDLE,
        f"the audits of epoch 0 are drawn from block {seal.block}",
    )
    assert found.until.startswith("it reveals its draw, in 10 min")


def test_a_weight_that_a_validator_no_longer_gives_is_zero() -> None:
    driven, miner, validator = sealed_run()
    other = driven.state.miners()[1]
    first = WeightsSet(block=5, weights={miner.hotkey: 0.25, other.hotkey: 0.75}, compute_share=0.1)
    driven.say(validator, reports=[first])
    driven.say(validator, reports=[WeightsSet(block=9, weights={other.hotkey: 1.0}, compute_share=0.1)])
    assert [(w.block, w.weight) for w in record_of(driven, miner).weights] == [(5, 0.25), (9, 0.0)]


def test_the_more_weights_a_report_has_the_more_blocks_are_between_two() -> None:
    driven, _, validator = sealed_run()
    taken = []
    for block in range(1, 300):
        weights = {fake_hotkey(number): 0.5 for number in range(WEIGHTS_PER_BLOCK)}
        report = WeightsSet(block=block, weights=weights, compute_share=0.1)
        if driven.coordinator.is_new(validator.hotkey, report):
            driven.say(validator, reports=[report])
            taken.append(block)
    assert taken[:3] == [1, 3, 5]
    assert taken[-1] <= driven.state.head.block + MAX_AHEAD


def test_a_record_is_bounded_however_long_the_run_is() -> None:
    history = History()
    history.happened(0.0, 0, "the first")
    for epoch in range(1000):
        history.work(epoch).tokens += 1
        history.happened(float(epoch), epoch, "it joined")
    epochs = list(history.epochs())
    assert (len(epochs), len(history.incidents)) == (EPOCHS_KEPT, RECENT_KEPT)
    assert [(work.epoch, work.tokens) for work in epochs] == [(n, 1) for n in range(1000 - EPOCHS_KEPT, 1000)]
    first, second = (Incident.model_validate_json(kept) for kept in history.incidents[:2])
    assert (first.text, second.epoch) == ("the first", 1000 - RECENT_KEPT + 1)


def test_a_miner_that_repeats_its_epoch_after_a_restart_is_not_late() -> None:
    driven = Driven.training(make_spec(steps=4, microbatches=4))
    for index in range(4):
        driven.wait(3.0)
        driven.run_microbatch(0, index)
    late_after = driven.state.deadlines.ops[0].seconds
    assert late_after < 30.0
    miner = driven.state.miners()[0]
    driven.coordinator.apply(Resumed(at=driven.now))
    driven.wait(late_after + 1.0)  # it starts later than the orchestrator
    assert not miner.stalled
    assert driven.join(0, receipts=miner.receipts, epoch=0).resume
    driven.wait(late_after + 1.0)
    assert not miner.stalled
    assert not driven.state.incidents.named
    driven.wait(driven.state.limits.max_s)
    assert miner.stalled
    waiting = driven.coordinator.status()["waiting"]
    assert waiting == "stage 0 holds up the run: the work of its miners is overdue"


def test_the_end_of_a_run_says_which_audits_it_waits_for() -> None:
    driven, _, validator = sealed_run()
    driven.state.phase = Phase.FINISHED
    waiting = driven.coordinator.status()["waiting"]
    assert validator.hotkey[:8] in waiting
    assert "audits epoch 0, for 10 min at most" in waiting


@pytest_asyncio.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with orchestrator(tmp_path / "journal.db") as made:
        yield made


async def test_a_member_is_found_by_its_hotkey_or_the_start_of_it(running: Running) -> None:
    async with node(running, b"a") as one, node(running, b"b"):
        await until(lambda: len(running.coordinator.members) == 2)
        hotkey = one.hotkey.ss58
        for asked in (hotkey, hotkey[:8]):
            status, document, _ = await raw(running, f"/v1/members/{asked}", b"", method="GET")
            assert (status, document["hotkey"], document["run"]) == (200, hotkey, running.spec.id)
            assert abs(document["heard"] - time.time()) < 60.0
        assert (await one.client.member(hotkey)).stage == 0
        for asked in ("5", "5zzzzzzz", "x" * 300, "..%2f"):
            status, problem, _ = await raw(running, f"/v1/members/{asked}", b"", method="GET")
            assert (status, problem["type"]) == (404, "urn:iota:problem:not-found")
