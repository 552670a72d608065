"""Scores and weights follow from public records and verdicts alone."""

from __future__ import annotations

import pytest

from iota.model.layout import stage_flops
from iota.protocol.receipts import OpKind, Receipt
from iota.spec import AuditSpec
from tests.support.small_runs import small_run
from validator.core.scoring import MinerWork, Score, ban_end, op_flops, scores, validity

AUDIT = AuditSpec(window=4)


def work(hotkey: str, flops: int = 100, epoch: int = 0, **fields: int | bool) -> MinerWork:
    return MinerWork(epoch, hotkey, flops, **{"ended": 10, "withdrawn": 0, **fields})  # type: ignore[arg-type]


def by_name(found: tuple[Score, ...]) -> dict[str, Score]:
    return {score.hotkey: score for score in found}


def test_weights_are_shares_of_work() -> None:
    found = by_name(scores(AUDIT, 0, [work("a", 300), work("b", 100)], {}))
    assert (found["a"].weight, found["b"].weight) == (0.75, 0.25)


def test_burn_is_taken_from_all_alike() -> None:
    audit = AuditSpec(window=4, burn=0.2)
    found = by_name(scores(audit, 0, [work("a", 300), work("b", 100)], {}))
    assert found["a"].weight == pytest.approx(0.6)
    assert found["b"].weight == pytest.approx(0.2)


def test_work_before_the_window_is_forgotten() -> None:
    found = by_name(scores(AUDIT, 5, [work("a", epoch=1), work("b", epoch=2)], {}))
    assert found.keys() == {"b"}


def test_withdrawn_work_lowers_the_score() -> None:
    found = by_name(scores(AUDIT, 0, [work("a"), work("b", ended=10, withdrawn=10)], {}))
    assert (found["a"].timeliness, found["b"].timeliness) == (1.0, 0.5)
    assert found["a"].weight == pytest.approx(2 / 3)


def test_a_failed_verdict_takes_everything() -> None:
    found = by_name(scores(AUDIT, 0, [work("a"), work("b")], {"b": [0]}))
    assert (found["a"].weight, found["b"].weight) == (1.0, 0.0)
    assert found["b"].failed_epochs == (0,)


def test_work_that_stayed_unproven_is_not_paid() -> None:
    entries = [work("a"), work("b", unproven=True), work("b", 50, epoch=1)]
    assert by_name(scores(AUDIT, 1, entries, {}))["b"].work == 50


def test_nobody_with_a_score_means_no_weights() -> None:
    assert [s.weight for s in scores(AUDIT, 0, [work("a", 0)], {})] == [0.0]
    assert scores(AUDIT, 0, [], {}) == ()


def test_a_ban_lasts_a_window_and_ends_in_a_ramp() -> None:
    course = [validity([3], now, 4) for now in range(2, 13)]
    assert course == [1, 0, 0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1]


def test_each_further_offence_doubles_the_ban() -> None:
    assert ban_end([0], 4) == 4
    assert ban_end([0, 10], 4) == 10 + 8
    assert ban_end([0, 10, 20], 4) == 20 + 16


def test_failing_within_a_ban_prolongs_it_by_a_window() -> None:
    assert ban_end([0, 1, 2, 3], 4) == 3 + 4


@pytest.mark.parametrize(
    ("kind", "thirds"),
    [(OpKind.FORWARD, 1), (OpKind.BACKWARD, 2), (OpKind.LOSS, 3), (OpKind.STEP, 0), (OpKind.MERGE, 0)],
)
def test_an_op_is_worth_its_model_flops_whatever_its_receipt_claims(kind: OpKind, thirds: int) -> None:
    spec = small_run()
    receipt = Receipt(
        seq=1, epoch=0, step=0, stage=1, kind=kind, version=0, output="0" * 64, tokens=10**6,
        started=0, ended=0, device="cpu",
    )  # fmt: skip
    whole = stage_flops(spec.model, spec.layout.cuts, 1, 12, spec.boundary) * 24
    assert op_flops(spec, receipt) == whole * thirds // 3
