"""Scores and weights follow from public records and verdicts alone."""

from __future__ import annotations

import pytest

from iota.model.layout import stage_flops
from iota.protocol.receipts import OpKind, Receipt
from iota.spec import AuditSpec
from tests.support.small_runs import small_run
from validator.core.scoring import MinerWork, Score, op_flops, scores
from validator.core.vesting import Findings, WorkState, ban_end, failed_epochs, validity

AUDIT = AuditSpec(window=4)


def work(hotkey: str, flops: int = 100, epoch: int = 0, owner: str = "", **fields: int) -> MinerWork:
    return MinerWork(epoch, hotkey, owner or hotkey, flops, **{"ended": 10, "withdrawn": 0, **fields})


def passes(*entries: tuple[int, str], **more: frozenset[tuple[int, str]]) -> Findings:
    """Findings with passed STEP audits of (epoch, worker)."""
    return Findings(passed=frozenset(entries), **more)


AB = passes((0, "a"), (0, "b"))


def by_name(found: tuple[Score, ...]) -> dict[str, Score]:
    return {score.hotkey: score for score in found}


def test_weights_are_shares_of_work() -> None:
    found = by_name(scores(AUDIT, 0, [work("a", 300), work("b", 100)], AB))
    assert (found["a"].weight, found["b"].weight) == (0.75, 0.25)


def test_burn_is_taken_from_all_alike() -> None:
    audit = AuditSpec(window=4, burn=0.2)
    found = by_name(scores(audit, 0, [work("a", 300), work("b", 100)], AB))
    assert found["a"].weight == pytest.approx(0.6)
    assert found["b"].weight == pytest.approx(0.2)


def test_work_before_the_window_is_forgotten() -> None:
    vested = passes((1, "a"), (2, "b"))
    found = by_name(scores(AUDIT, 5, [work("a", epoch=1), work("b", epoch=2)], vested))
    assert found.keys() == {"b"}


def test_withdrawn_work_lowers_the_score() -> None:
    found = by_name(scores(AUDIT, 0, [work("a"), work("b", ended=10, withdrawn=10)], AB))
    assert (found["a"].timeliness, found["b"].timeliness) == (1.0, 0.5)
    assert found["a"].weight == pytest.approx(2 / 3)


def test_a_failed_verdict_takes_everything() -> None:
    failed = passes((0, "a"), (0, "b"), failed=frozenset({(0, "b")}))
    found = by_name(scores(AUDIT, 0, [work("a"), work("b")], failed))
    assert (found["a"].weight, found["b"].weight) == (1.0, 0.0)
    assert (found["b"].failed_epochs, found["b"].voided) == ((0,), 100)


def test_nobody_with_a_score_means_no_weights() -> None:
    assert [s.weight for s in scores(AUDIT, 0, [work("a", 0)], AB)] == [0.0]
    assert scores(AUDIT, 0, [], AB) == ()


# ---- vesting ----------------------------------------------------------------------------------


def test_work_is_unpaid_until_a_step_is_audited_and_then_it_is_all_paid() -> None:
    entries = [work("a", epoch=epoch) for epoch in range(3)]
    assert [(s.work, s.open) for s in scores(AUDIT, 1, entries, passes((2, "a")))] == [(0, 200)]
    [score] = scores(AUDIT, 2, entries, passes((2, "a")))
    assert (score.work, score.open, score.weight) == (300, 0, 1.0)
    assert {(pay.state, pay.settled) for pay in score.epochs} == {(WorkState.VESTED, 2)}


def test_a_pass_vests_no_work_that_comes_after_it() -> None:
    [score] = scores(AUDIT, 1, [work("a"), work("a", 50, epoch=1)], passes((0, "a")))
    assert (score.work, score.open) == (100, 50)


def test_work_whose_evidence_is_gone_does_not_vest_and_what_lies_beside_it_does() -> None:
    entries = [work("a", 2**epoch, epoch) for epoch in range(3)]
    for passed in ((2, "a"), (1, "a")), ((2, "a"),):
        [score] = scores(AUDIT, 2, entries, passes(*passed, undecided=frozenset({(1, "a")})))
        assert (score.work, score.open, score.voided) == (1 + 4, 2, 0)
    [score] = scores(AUDIT, 2, entries, passes((2, "a"), undecided=frozenset({(1, "b")})))
    assert score.work == 7


def test_what_was_not_delivered_voids_the_open_work_up_to_it_and_no_other() -> None:
    entries = [work("a", 2**epoch, epoch) for epoch in range(4)]
    found = passes((0, "a"), (2, "a"), (3, "a"), undelivered=frozenset({(2, "a")}))
    [score] = scores(AUDIT, 3, entries, found)
    assert (score.work, score.voided, score.valid) == (1 + 8, 2 + 4, 1.0)


def test_the_second_time_within_a_window_that_nothing_is_delivered_is_a_failed_epoch() -> None:
    entries = [work("a", epoch=epoch) for epoch in range(8)]
    twice = passes((7, "a"), undelivered=frozenset({(3, "a"), (6, "a")}))
    [score] = scores(AUDIT, 7, entries, twice)
    assert (score.failed_epochs, score.weight) == ((6,), 0.0)
    apart = passes((7, "a"), undelivered=frozenset({(2, "a"), (6, "a")}))
    assert scores(AUDIT, 7, entries, apart)[0].failed_epochs == ()


def test_a_revoked_worker_loses_what_it_left_open_and_its_owner_is_not_banned() -> None:
    entries = [work("a", 2**epoch, epoch, "o") for epoch in range(4)]
    found = passes((0, "a"), revoked=frozenset({(2, "a"), (3, "a")}))
    [score] = scores(AUDIT, 3, entries, found)
    assert (score.work, score.voided, score.failed_epochs) == (1, 2 + 4 + 8, ())


def test_a_revocation_counts_as_one_time_that_nothing_is_delivered() -> None:
    """Else a cheat would revoke its worker when it is asked a second time for what it has not."""
    found = passes(undelivered=frozenset({(3, "a")}), revoked=frozenset({(5, "a"), (6, "a")}))
    assert failed_epochs(found, {"a": "o"}, 4) == {"o": (5,)}


def test_who_leaves_before_its_audit_is_not_paid_for_what_it_left_open() -> None:
    [score] = scores(AUDIT, 3, [work("a")], Findings())
    assert (score.work, score.open, score.score) == (0, 100, 0.0)


def test_a_worker_s_fail_bans_its_owner_also_when_the_worker_is_gone() -> None:
    found = passes((3, "b"), failed=frozenset({(0, "a")}))
    [score] = scores(AUDIT, 3, [work("b", epoch=3, owner="o")], found, {"a": "o"})
    assert (score.hotkey, score.failed_epochs, score.weight) == ("o", (0,), 0.0)
    assert failed_epochs(found, {}, 4) == {"a": (0,)}


# ---- bans -------------------------------------------------------------------------------------


def test_a_ban_lasts_a_window_and_ends_in_a_ramp() -> None:
    course = [validity([3], now, 4) for now in range(2, 13)]
    assert course == [1, 0, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]


def test_each_further_offence_doubles_the_ban() -> None:
    assert ban_end([0], 4) == 4
    assert ban_end([0, 10], 4) == 10 + 8
    assert ban_end([0, 10, 20], 4) == 20 + 16


def test_failing_within_a_window_of_an_offence_prolongs_its_ban() -> None:
    assert ban_end([0, 1, 2, 3], 4) == 3 + 4
    assert ban_end([0, 10, 11], 4) == 11 + 8


def test_one_more_failed_epoch_never_shortens_a_ban() -> None:
    assert ban_end([0, 1, 4], 4) == ban_end([0, 4], 4) == 4 + 8


@pytest.mark.parametrize(
    ("kind", "thirds", "summed"),
    [(OpKind.FORWARD, 1, 1), (OpKind.BACKWARD, 1, 2), (OpKind.LOSS, 2, 3), (OpKind.STEP, 0, 0)],
)
def test_an_op_is_worth_its_model_flops_whatever_its_receipt_claims(
    kind: OpKind, thirds: int, summed: int
) -> None:
    spec = small_run()
    receipt = Receipt(
        seq=1, epoch=0, step=0, stage=1, kind=kind, version=0, output="0" * 64, tokens=10**6,
        started=0, ended=0, device="cpu",
    )  # fmt: skip
    whole = stage_flops(spec.model, spec.layout.cuts, 1, 12, spec.boundary) * 24
    assert op_flops(spec, receipt, weight_gradient=False) == whole * thirds // 3
    assert op_flops(spec, receipt, weight_gradient=True) == whole * summed // 3
