"""The lines that miners, validators and the orchestrator write to their logs while they work."""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from iota.console.durations import LINE_EVERY_S
from iota.console.lasting import lasting
from iota.protocol.member_records import AuditResult, MemberRecord, MemberState, PostedWeight, Withdrawal
from iota.protocol.messages import AuditKind, Outcome, Role, Verdict
from iota.simulate.names import fake_hotkey
from iota.swarm.preparation import prepare_data
from miner.activity import Activity
from miner.own_record import news
from miner.progress_line import Position, ProgressLines
from orchestrator.coordinator import Coordinator, Joined, Lost
from orchestrator.http.progress_log import ProgressLog, progress_line
from tests.support.coordinators import Driven
from tests.support.data_sets import made_up_text, write_jsonl
from tests.support.orchestrators import make_spec, until
from tests.support.statuses import run_status
from validator import progress_line as validator_line

VALIDATOR, MINER = fake_hotkey(1), fake_hotkey(2)
HERE = Position(epoch=1, step=4, steps=20, stage=2, credit_used=2, credit=3, state="epoch 1 step 4")


def test_a_miner_s_line_says_what_it_did_since_the_last_one() -> None:
    lines, activity = ProgressLines(100.0), Activity()
    assert lines.look(110.0, replace(HERE, step=1), replace(activity, tokens=1000)) is not None
    later = Activity(
        wait_s=6.0, tokens=61_000, loss_sum=30.0, losses=10, sent_bytes=3 << 20, received_bytes=5120
    )
    assert lines.look(140.0, HERE, later) == (
        "epoch 1 step 4/20, stage 2: loss 3.0000, 2,000 tokens/s, waiting 20%,"
        " 2 of 3 microbatches in flight, frames 3.0 MiB up 5.0 KiB down"
    )


def test_a_stage_without_a_loss_states_none() -> None:
    text = ProgressLines(0.0).look(1.0, HERE, Activity(tokens=10))
    assert text is not None
    assert "loss" not in text


@pytest.mark.parametrize("step_s", [0.1, 2.0, 60.0, float("inf")])
def test_a_miner_writes_a_line_each_half_minute_whatever_its_steps_take(step_s: float) -> None:
    lines = ProgressLines(0.0)
    times = [float(t) for t in range(1, 601, 2)]
    said = [t for t in times if lines.look(t, replace(HERE, step=int(t / step_s)), Activity())]
    assert said[0] <= LINE_EVERY_S + 1
    assert {later - sooner for sooner, later in pairwise(said[1:])} <= {LINE_EVERY_S, LINE_EVERY_S + 2}


def test_a_miner_without_steps_says_what_it_waits_for() -> None:
    lines = ProgressLines(0.0)
    assert lines.look(29.0, replace(HERE, step=0, state="loading"), Activity()) is None
    text = lines.look(30.0, replace(HERE, step=0, state="loading"), Activity())
    assert text is not None
    assert text.endswith("no step for 30 s (loading): `iota status` says what the run waits for")


def test_the_time_without_a_step_grows_from_line_to_line() -> None:
    lines = ProgressLines(0.0)
    said = [lines.look(30.0 * n, HERE, Activity()) for n in range(1, 5)]
    assert [re.findall(r"no step for (.*) \(", text or "") for text in said] == [
        [],
        ["30 s"],
        ["60 s"],
        ["90 s"],
    ]


def record(**changes: Any) -> MemberRecord:
    given: dict[str, Any] = {
        "run": "a" * 64,
        "hotkey": MINER,
        "owner": MINER,
        "role": Role.MINER,
        "stage": 0,
        "device": "cpu",
        "state": MemberState.WORKING,
        "why": "2 of its ops have their inputs",
        "until": "",
        "epoch": 3,
        "window": 8,
        "tokens": 5,
        "receipts": 9,
        "withdrawn": 0,
        "epochs": (),
        "audits": {},
        "verdicts": (),
        "failed": (),
        "weights": (),
        "incidents": (),
    }
    return MemberRecord(**{**given, **changes})


def result(outcome: Outcome, epoch: int = 2, reason: str = "") -> AuditResult:
    return AuditResult(validator=VALIDATOR, epoch=epoch, audit=AuditKind.OP, outcome=outcome, reason=reason)


def test_verdicts_and_weights_are_told_once() -> None:
    first = record(verdicts=(result(Outcome.PASS), result(Outcome.PASS)))
    assert news(None, first) == [(logging.INFO, "audit of epoch 2 (op): 2 passed")]
    assert news(first, first) == []
    weight = PostedWeight(validator=VALIDATOR, epoch=3, block=12, weight=0.25)
    bad = result(Outcome.FAIL, reason="another output")
    second = record(verdicts=(*first.verdicts, bad), weights=(weight,), state=MemberState.LATE, why="slow")
    assert news(first, second) == [
        (logging.WARNING, f"audit of epoch 2 (op): fail by validator {VALIDATOR[:8]}: another output"),
        (logging.INFO, f"weight 0.2500 by validator {VALIDATOR[:8]} in block 12"),
        (logging.WARNING, "the run counts this miner as late: slow"),
    ]


def test_work_that_was_withdrawn_is_told_once_with_why() -> None:
    first = record(withdrawals={Withdrawal.LATE: 1})
    assert news(first, first) == []
    second = record(withdrawals={Withdrawal.LATE: 1, Withdrawal.WORD: 2})
    text = "2 microbatches withdrawn from this miner: its word against frames was not so"
    assert news(first, second) == [(logging.WARNING, text)]


def verdict(outcome: Outcome, kind: AuditKind = AuditKind.OP) -> Verdict:
    return Verdict(epoch=3, miner=MINER, audit=kind, outcome=outcome, seq=1, profile="exact")


def test_a_validator_s_line_counts_audits_by_kind_and_outcome() -> None:
    lines = validator_line.ProgressLines(0.0, most=0.1)
    for _ in range(5):
        lines.filed(verdict(Outcome.PASS))
    lines.filed(verdict(Outcome.FAIL, AuditKind.SEGMENT))
    lines.filed(verdict(Outcome.UNSHOWN, AuditKind.SEGMENT))
    assert lines.look(29.0, "replaying", "none yet", 0.05) is None
    assert lines.look(30.0, "replaying", "none yet", 0.05) == (
        "audits: epoch 3 op: 5 passed; epoch 3 segment: 1 failed, 1 unshown (7 in all);"
        " now: replaying; weights: none yet; 5.0% of the machine, 10% at most"
    )
    assert lines.look(59.0, "waiting", "none yet", 0.05) is None
    assert "no new verdict (7 in all)" in str(lines.look(60.0, "waiting", "none yet", 0.05))


def test_a_validator_that_has_nothing_to_audit_says_so_after_half_a_minute() -> None:
    assert validator_line.ProgressLines(0.0, most=0.1).look(30.0, "no epoch to audit", "none yet", 0.01) == (
        "audits: no new verdict (0 in all); now: no epoch to audit; weights: none yet;"
        " 1.0% of the machine, 10% at most"
    )


def test_an_audited_epoch_is_told_at_once() -> None:
    lines = validator_line.ProgressLines(0.0, most=0.1)
    lines.filed(verdict(Outcome.PASS))
    lines.filed(verdict(Outcome.INCONCLUSIVE))
    assert lines.audited(3) == "epoch 3 is audited: epoch 3 op: 1 passed, 1 inconclusive (2 in all)"
    assert "audits: no new verdict (2 in all)" in str(lines.look(30.0, "", "", 0.0))


def test_the_orchestrator_s_line_says_members_step_loss_and_what_is_late() -> None:
    status = run_status(3)
    status["members"][0]["live"] = False
    status["members"][1]["stalled"] = True
    assert progress_line(status, status["losses"], 60_000, 30.0) == (
        "training: epoch 1 step 12/20, loss 2.5539, 2,000 tokens/s; 2 of 3 miners live, 1 late, 1 validator;"
        " 1 dropped, 4 re-routed; audits 6+ 1- 0! 0?"
    )


async def test_the_orchestrator_writes_a_line_each_half_minute_although_nothing_goes_on(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("orchestrator.http.progress_log.LINE_EVERY_S", 0.01)
    running = asyncio.create_task(ProgressLog(Coordinator(make_spec())).run())
    await until(lambda: len(caplog.messages) > 2)
    running.cancel()
    assert all("waits: stage 0 has no replica" in message for message in caplog.messages)


async def test_what_lasts_is_said_at_once_and_each_half_minute(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr("iota.console.lasting.LINE_EVERY_S", 0.01)
    async with lasting("making stage 2 on cpu"):
        assert caplog.messages == ["making stage 2 on cpu"]
        await until(lambda: len(caplog.messages) > 1)
    assert caplog.messages[1].startswith("still making stage 2 on cpu, for 0")


def test_the_orchestrator_logs_joins_losses_and_merges(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    driven = Driven.training(make_spec())
    log, member = ProgressLog(driven.coordinator), driven.state.miners()[1]
    joined = Joined.model_construct(hotkey=member.hotkey, at=driven.now)
    log.observe(joined)
    log.observe(Lost(at=driven.now, hotkey=member.hotkey))
    driven.state.totals.merges.append(20)
    log.observe(Lost(at=driven.now, hotkey=member.hotkey))
    assert f"{member.hotkey} joined as miner of stage 1, on test" in caplog.messages
    assert f"{member.hotkey} is lost: it was silent for too long" in caplog.messages
    assert "epoch 0 is merged, after step 20 of the run" in caplog.messages


def test_an_up_that_prepares_data_says_how_far_it_is_each_half_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, said = write_jsonl(tmp_path / "a.jsonl", [made_up_text(n) for n in range(500)]), list[str]()
    prepare_data(str(source), "bytes", tmp_path / "first", said.append)
    assert said == []  # it took less than half a minute
    monkeypatch.setattr("iota.swarm.preparation.LINE_EVERY_S", 0.0)
    prepare_data(str(source), "bytes", tmp_path / "second", said.append)
    assert re.fullmatch(r"data: \d+ documents, [\d,]+ tokens", said[0])
