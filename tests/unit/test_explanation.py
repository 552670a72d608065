"""`iota explain` in words: work, timeliness, audits, bans, weight, and what to do."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from iota.identity.certificates import revoke
from iota.protocol.member_records import (
    AuditResult,
    Charge,
    EpochAudits,
    EpochWork,
    Incident,
    MemberRecord,
    MemberState,
    PostedWeight,
    PostedWeights,
    Withdrawal,
)
from iota.protocol.messages import AuditKind, Outcome, Role
from iota.simulate.names import fake_hotkey
from iota.swarm.explanation import bans, explain
from iota.swarm.owner_explanation import workers_of
from tests.support.statuses import run_status
from tests.support.workers import OWNER, certificate, key

MINER, VALIDATOR = fake_hotkey(1), fake_hotkey(2)
NAMES = {MINER: "miner-00", VALIDATOR: "validator"}


def failed(epoch: int) -> AuditResult:
    return AuditResult(
        validator=VALIDATOR, epoch=epoch, audit=AuditKind.SEGMENT, outcome=Outcome.FAIL, reason="another sum"
    )


def charge(epoch: int, miner: str = MINER, outcome: Outcome = Outcome.FAIL) -> Charge:
    return Charge(validator=VALIDATOR, epoch=epoch, audit=AuditKind.SEGMENT, outcome=outcome, miner=miner)


def record_of(**changes: Any) -> MemberRecord:
    work = {"forward": 24, "backward": 24, "steps": 6, "tokens": 3072, "stage_tokens": 6144}
    given: dict[str, Any] = {
        "run": "ab" * 32,
        "hotkey": MINER,
        "owner": MINER,
        "role": Role.MINER,
        "stage": 1,
        "device": "cpu/x86_64",
        "state": MemberState.LATE,
        "why": "an op that was ready missed its deadline, so nothing new is planned for it",
        "until": "its next receipt or stored frame",
        "epoch": 3,
        "window": 8,
        "tokens": 3072,
        "receipts": 54,
        "withdrawn": 2,
        "epochs": (EpochWork(epoch=2, stage=1, met=48, missed=1, withdrawn=2, **work),),
        "audits": {AuditKind.OP: {Outcome.PASS: 6}, AuditKind.SEGMENT: {Outcome.FAIL: 1}},
        "verdicts": (failed(2),),
        "failed": (failed(2),),
        "charged": (charge(2),),
        "weights": (PostedWeight(validator=VALIDATOR, epoch=2, block=31, weight=0.25),),
        "incidents": (Incident(at=0.0, epoch=2, text="it missed a deadline"),),
    }
    return MemberRecord(**{**given, **changes})


def told(**changes: Any) -> str:
    return "\n".join(explain(record_of(**changes), NAMES))


def test_everything_on_record_is_told() -> None:
    text = told()
    for part in (
        f"{MINER} (miner-00), miner of stage 1 of run abababababab, on cpu/x86_64",
        "now: late: an op that was ready missed its deadline, so nothing new is planned for it; until its",
        "3,072       50%        48     1          2",
        "48 ops in time, 1 deadline missed, 2 microbatches withdrawn from it",
        "audits: op: 6 pass; segment: 1 fail",
        "epoch 2, segment: fail by validator: another sum",
        "0.2500 by validator, block 31, during epoch 2",
        "1970-01-01 00:00:00 UTC, epoch 2: it missed a deadline",
        "to do: see its log",
    ):
        assert part in text


def test_a_worker_is_told_with_its_owner_and_a_revoked_one_with_what_to_do() -> None:
    made = certificate("ab" * 32, key(1), serial=1_753_000_000_125)
    revocation = revoke(OWNER, key(1).ss58, "ab" * 32)
    given = {"hotkey": key(1).ss58, "owner": OWNER.ss58, "certificate": made}
    line = f"a worker of {OWNER.ss58}, who is paid for it; certified 2025-07-20 08:26:40 UTC"
    assert line in told(**given)
    assert "a worker of" not in told()
    text = told(**given, revocation=revocation, state=MemberState.LEFT)
    assert "to do: make a new worker for the machine with `iota-miner certify`" in text
    assert "start it again" not in text


def test_why_work_was_withdrawn_is_told_with_what_to_do_about_it() -> None:
    text = told(
        withdrawals={Withdrawal.WORD: 60, Withdrawal.LATE: 4},
        state=MemberState.WORKING,
        failed=(),
        charged=(),
    )
    assert "60 because its word against frames was not so, 4 because it was late" in text
    assert "to do: what it said of frames was not so" in text
    assert "to do: its device or its line was too slow" in text
    assert "to do: nothing" not in text


def test_what_is_cut_is_counted_and_of_the_incidents_the_first_stays() -> None:
    work = record_of().epochs[0]
    text = told(
        epoch=12,
        epochs=tuple(work.model_copy(update={"epoch": epoch}) for epoch in range(11)),
        audits={AuditKind.OP: {Outcome.PASS: 40, Outcome.FAIL: 22}},
        verdicts=(failed(3), verdict(4, AuditKind.OP, Outcome.PASS)),
        failed=tuple(failed(epoch) for epoch in range(4)) * 3,
        weights=tuple(record_of().weights[0].model_copy(update={"block": block}) for block in range(10)),
        incidents=tuple(Incident(at=0.0, epoch=epoch, text=f"incident {epoch}") for epoch in range(12)),
    )
    lines = text.split("\n")
    for above, cut in (
        ("work  ", "  and 3 earlier: --json"),
        ("audits: op", "  and 14 earlier, of which --json has 4"),
        ("pay, by", "  and 3 earlier: --json"),
        ("weight, as", "  and 2 earlier: --json"),
    ):
        [at] = [at for at, line in enumerate(lines) if line.startswith(above)]
        assert lines[at + 1] == cut
    assert sum(": fail by" in line for line in lines) == 8
    at = lines.index("what happened:")
    assert [line[-11:] for line in lines[at + 1 : at + 4]] == [" incident 0", "ore: --json", " incident 5"]
    assert lines[at + 2] == "  and 4 more: --json"


def test_a_workers_weight_and_pay_are_said_to_be_its_owners() -> None:
    made = certificate("ab" * 32, key(1))
    text = told(hotkey=key(1).ss58, owner=OWNER.ss58, certificate=made)
    assert f"weight of its owner {OWNER.ss58[:8]}, for all its workers, as validators reported it:" in text
    assert "pay of its owner for it, by the public verdicts" in text
    assert "of its owner" not in told()


def test_an_owner_is_told_its_audits_pay_and_weight_over_its_workers() -> None:
    status = run_status(2)
    records = []
    for number, row in enumerate(status["members"][:2], 1):
        worker = key(number).ss58
        row |= {"hotkey": worker, "owner": OWNER.ss58, "receipts": 5}
        passed = (verdict(3, AuditKind.SEGMENT, Outcome.PASS),) if number == 1 else ()
        records.append(record_of(hotkey=worker, owner=OWNER.ss58, settling=passed, charged=()))
    text = "\n".join(workers_of(OWNER.ss58, status["members"], NAMES, records))
    assert "\naudits of its workers: op: 12 pass; segment: 2 fail\n" in text
    assert "\npay for its workers, by the public verdicts, in microbatches whose backward was run" in text
    assert "\n  epoch 2: 24 open, 24 vested, 0 voided\n" in text
    assert "\nweight, as validators reported it:\n  0.2500 by validator, block 31" in text


def test_the_workers_of_an_owner_are_listed_with_their_state() -> None:
    status = run_status(4)
    for row in status["members"][:3]:
        row |= {"owner": OWNER.ss58, "receipts": 5}
    status["members"][1] |= {"revoked": True, "live": False}
    status["members"][2]["live"] = False
    lines = workers_of(OWNER.ss58, status["members"], {fake_hotkey(0): "miner-00"})
    assert lines[0] == f"{OWNER.ss58} has 3 workers in this run:"
    states = ["(miner-00), stage 0: live; 87,000 tokens, 5 receipts", "stage 1: revoked", "stage 2: lost"]
    assert all(state in line for state, line in zip(states, lines[1:], strict=True))
    assert workers_of(fake_hotkey(3), status["members"], {}) == []


def test_the_bans_of_an_owner_are_told_below_its_workers() -> None:
    status, worker = run_status(2), key(1).ss58
    status["members"][0] |= {"hotkey": worker, "owner": OWNER.ss58, "receipts": 5}
    record = record_of(hotkey=worker, owner=OWNER.ss58, charged=(charge(2, worker),))
    lines = workers_of(OWNER.ss58, status["members"], NAMES, [record])
    assert lines[-1] == "  banned until epoch 10 at validator validator, then 8 epochs on a ramp"


def verdict(epoch: int, audit: AuditKind, outcome: Outcome) -> AuditResult:
    return AuditResult(validator=VALIDATOR, epoch=epoch, audit=audit, outcome=outcome)


@pytest.mark.parametrize(
    ("verdicts", "told_of_it"),
    [
        ((verdict(2, AuditKind.OP, Outcome.PASS),), "24 microbatches open until a segment passes"),
        ((verdict(3, AuditKind.SEGMENT, Outcome.PASS),), "24 microbatches vested by a verdict of epoch 3"),
        ((verdict(3, AuditKind.OP, Outcome.UNDELIVERED),), "24 microbatches voided by a verdict of epoch 3"),
    ],
)
def test_it_is_told_what_became_of_its_work(verdicts: tuple[AuditResult, ...], told_of_it: str) -> None:
    assert f"  epoch 2: {told_of_it}\n" in told(settling=verdicts)


def test_a_ban_is_told_with_its_end_by_the_scoring_rule() -> None:
    charged = (charge(2), charge(5), charge(12))  # 12 is a second offence, 5 is none
    assert bans(charged, 8) == {VALIDATOR: 28}
    text = told(epoch=3)
    assert "banned until epoch 10 at validator validator, then 8 epochs on a ramp" in text
    assert "the ban ends by itself" in text
    assert "was banned until epoch 10" in told(epoch=10)


def test_a_worker_is_told_that_its_owner_is_banned_for_another_worker() -> None:
    made = certificate("ab" * 32, key(1))
    given = {"hotkey": key(1).ss58, "owner": OWNER.ss58, "certificate": made, "verdicts": (), "failed": ()}
    text = told(**given, charged=(charge(2, key(2).ss58),))
    assert "its owner is banned until epoch 10 at validator validator" in text
    assert "the ban is for a failed audit of another worker of its owner" in text
    assert "its results differ" not in text
    assert "its owner is banned until epoch 10" in told(**given, audits={}, charged=(charge(2, key(2).ss58),))


def test_a_second_time_that_one_worker_delivers_nothing_is_told_as_a_ban_and_once_of_two_is_none() -> None:
    first, second = (charge(epoch, outcome=Outcome.UNDELIVERED) for epoch in (2, 4))
    assert bans((first, second), 8) == {VALIDATOR: 12}
    assert bans((first, charge(4, key(2).ss58, Outcome.UNDELIVERED)), 8) == {}
    assert "banned" not in told(verdicts=(), failed=(), charged=(first,))


def test_a_member_without_a_record_is_told_what_comes() -> None:
    text = told(
        epochs=(),
        audits={},
        verdicts=(),
        failed=(),
        charged=(),
        weights=(),
        state=MemberState.WORKING,
        until="",
    )
    for part in ("work: none yet", "no verdict yet", "no validator has reported one", "to do: nothing"):
        assert part in text


def told_of_a_validator(**changes: Any) -> str:
    given: dict[str, Any] = {
        "hotkey": VALIDATOR,
        "role": Role.VALIDATOR,
        "stage": -1,
        "state": MemberState.IDLE,
        "why": "it has audited every epoch whose audits are open",
        "until": "the merge of epoch 3",
        "epochs": (),
        "verdicts": (),
        "failed": (),
        "charged": (),
        "weights": (),
    }
    return told(**{**given, **changes})


def test_a_validator_is_told_its_audits_and_weights() -> None:
    audits = {AuditKind.OP: {Outcome.PASS: 6, Outcome.INCONCLUSIVE: 1}, AuditKind.SEGMENT: {Outcome.FAIL: 1}}
    text = told_of_a_validator(
        audits=audits,
        judged=(
            EpochAudits(epoch=1, passed=6, failed=1, undelivered=0, inconclusive=0, done=True),
            EpochAudits(epoch=2, passed=0, failed=0, undelivered=0, inconclusive=1, done=False),
        ),
        posted=PostedWeights(epoch=2, block=37, miners=3, compute_share=0.05),
        heard=60.0,
        says="no epoch to audit; weights: set in block 37",
    )
    for part in (
        f"{VALIDATOR} (validator), validator of run abababababab",
        "now: idle: it has audited every epoch whose audits are open; until the merge of epoch 3",
        "last heard: 1970-01-01 00:01:00 UTC",
        "it says: no epoch to audit; weights: set in block 37",
        "  epoch 1       7       6       1            0             0\n",
        "  epoch 2       1       0       0            0             1  more may come",
        "in all: 8 verdicts filed: 6 passed, 1 failed, 0 undelivered, 1 inconclusive",
        "weights: of 3 miners in block 37, during epoch 2; it uses 5.0% of its machine",
    ):
        assert part in text, text


def test_a_validator_without_a_record_is_told_what_comes() -> None:
    text = told_of_a_validator(audits={})
    for part in ("audits: none yet; they begin", "weights: it has reported none as set", "to do: nothing"):
        assert part in text


def test_no_text_of_a_member_commands_the_terminal() -> None:
    evil = "a \x1b]0;owned\x07\x1b[2J \u202e b"
    said = told(device=evil, why=evil, says=evil, incidents=(Incident(at=1e11, epoch=2, text=evil),))
    assert all(line.isprintable() for line in said.split("\n"))


def test_an_incident_at_a_time_that_no_calendar_has_is_refused() -> None:
    with pytest.raises(ValidationError):
        Incident(at=1e300, epoch=2, text="")
