"""Properties of scores and draws that hold for all records."""

from __future__ import annotations

import math
import random
from dataclasses import replace

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from iota.protocol.receipts import OpKind, Receipt
from iota.spec import AuditSpec
from validator.core.draw import choose, strata
from validator.core.scoring import MinerWork, scores
from validator.core.vesting import Findings, Vesting, WorkState, validity

WORKERS = "abcdef"
OWNERS = dict(zip(WORKERS, "xxyzzz", strict=True))
"""Some owners have several workers."""
entries = st.builds(
    lambda epoch, worker, **rest: MinerWork(epoch, worker, OWNERS[worker], **rest),
    epoch=st.integers(0, 20),
    worker=st.sampled_from(WORKERS),
    flops=st.integers(0, 10**18),
    ended=st.integers(0, 100),
    withdrawn=st.integers(0, 100),
)
works = st.lists(entries, max_size=30, unique_by=lambda w: (w.epoch, w.hotkey))
miner_epochs = st.tuples(st.integers(0, 20), st.sampled_from(WORKERS))
some = st.frozensets(miner_epochs, max_size=12)
rare = st.frozensets(miner_epochs, max_size=3)
found = st.builds(Findings, passed=some, undelivered=rare, failed=rare, undecided=rare)
audits = st.builds(AuditSpec, window=st.integers(1, 8), burn=st.floats(0, 1))
nows = st.integers(0, 25)


def score_of(audit: AuditSpec, now: int, work: list[MinerWork], findings: Findings) -> dict[str, float]:
    return {s.hotkey: s.score for s in scores(audit, now, work, findings, OWNERS)}


@given(audits, nows, works, found, st.randoms())
def test_scores_do_not_depend_on_the_order_of_records(
    audit: AuditSpec, now: int, work: list[MinerWork], findings: Findings, rng: random.Random
) -> None:
    shuffled = work[:]
    rng.shuffle(shuffled)
    assert scores(audit, now, work, findings) == scores(audit, now, shuffled, findings)


@given(audits, nows, works, found)
def test_weights_add_up_to_what_is_not_burned_or_to_nothing(
    audit: AuditSpec, now: int, work: list[MinerWork], findings: Findings
) -> None:
    scored = scores(audit, now, work, findings)
    total = sum(score.weight for score in scored)
    assert all(score.weight >= 0 for score in scored)
    expected = 1 - audit.burn if any(score.score > 0 for score in scored) else 0.0
    assert abs(total - expected) < 1e-9


@given(audits, nows, works, found)
def test_whose_worker_failed_within_the_window_has_no_weight(
    audit: AuditSpec, now: int, work: list[MinerWork], findings: Findings
) -> None:
    failed = {OWNERS[worker] for epoch, worker in findings.failed if now - audit.window < epoch <= now}
    assert all(s.weight == 0 for s in scores(audit, now, work, findings, OWNERS) if s.hotkey in failed)


@given(audits, nows, works, found, miner_epochs)
def test_one_more_pass_never_lowers_a_score(
    audit: AuditSpec, now: int, work: list[MinerWork], findings: Findings, at: tuple[int, str]
) -> None:
    before = score_of(audit, now, work, findings)
    after = score_of(audit, now, work, replace(findings, passed=findings.passed | {at}))
    assert all(after[owner] >= before[owner] for owner in before)


@given(audits, nows, works, found, miner_epochs, st.sampled_from(["failed", "undelivered"]))
def test_one_more_bad_verdict_never_raises_a_score(
    audit: AuditSpec, now: int, work: list[MinerWork], findings: Findings, at: tuple[int, str], kind: str
) -> None:
    before = score_of(audit, now, work, findings)
    after = score_of(audit, now, work, replace(findings, **{kind: getattr(findings, kind) | {at}}))
    assert all(after[owner] <= before[owner] for owner in before)


@given(audits, nows, works, found)
def test_nothing_pays_for_work_that_has_not_vested(
    audit: AuditSpec, now: int, work: list[MinerWork], findings: Findings
) -> None:
    vesting = Vesting(findings, now)
    vested = [w for w in work if vesting.of(w.epoch, w.hotkey)[0] is WorkState.VESTED]
    assert score_of(audit, now, work, Findings()) == dict.fromkeys(score_of(audit, now, work, findings), 0.0)
    for score in scores(audit, now, work, findings, OWNERS):
        own = [w for w in vested if w.owner == score.hotkey and now - audit.window < w.epoch <= now]
        assert score.work == sum(w.flops for w in own)
        assert score.score <= score.work
        assert score.work + score.open + score.voided == sum(pay.flops for pay in score.epochs)


@given(audits, nows, works, found)
def test_an_owner_is_paid_what_its_workers_would_be_as_owners(
    audit: AuditSpec, now: int, work: list[MinerWork], findings: Findings
) -> None:
    good = replace(findings, failed=frozenset(), undelivered=frozenset())
    alone = score_of(audit, now, [replace(w, owner=w.hotkey) for w in work], good)
    for owner, score in score_of(audit, now, work, good).items():
        own = [alone[worker] for worker in sorted(alone) if OWNERS[worker] == owner]
        assert score == math.fsum(own)


@given(audits, nows, works, found, st.sampled_from(WORKERS))
def test_more_vested_work_never_lowers_a_score(
    audit: AuditSpec, now: int, work: list[MinerWork], findings: Findings, worker: str
) -> None:
    rest = [w for w in work if (w.epoch, w.hotkey) != (now, worker)]
    more = MinerWork(now, worker, OWNERS[worker], 10**6, ended=1, withdrawn=0)
    before = score_of(audit, now, rest, findings).get(OWNERS[worker], 0.0)
    assert score_of(audit, now, [*rest, more], findings)[OWNERS[worker]] >= before


@given(st.lists(st.integers(0, 20), max_size=5), st.integers(1, 8))
def test_validity_is_within_bounds_and_comes_back(failed: list[int], window: int) -> None:
    course = [validity(failed, now, window) for now in range(10_000)]
    assert all(0 <= value <= 1 for value in course)
    assert course[-1] == 1


@given(
    st.binary(min_size=1, max_size=32), st.integers(0, 12), st.integers(0, 4), st.integers(0, 5), st.randoms()
)
def test_a_draw_is_reproducible_and_has_at_most_one_op_of_each_stratum(
    seed: bytes, count: int, ops: int, validators: int, rng: random.Random
) -> None:
    receipts = [
        Receipt(
            seq=n + 1, epoch=0, step=0, microbatch=n, stage=0, kind=OpKind.FORWARD, version=0,
            output="0" * 64, started=0, ended=0, device="cpu",
        )
        for n in range(count)
    ]  # fmt: skip
    audit, drawn = AuditSpec(ops=ops), blake3(seed).digest()
    found = choose(drawn, audit, receipts, validators, certain=False)
    shuffled = receipts[:]
    rng.shuffle(shuffled)
    assert choose(drawn, audit, shuffled, validators, certain=False) == found
    every = choose(drawn, audit, receipts, validators, certain=True)
    bounds = strata(count, ops)
    assert len(every) == len(bounds) == min(ops, count)
    assert all(low < r.seq <= high for r, (low, high) in zip(every, bounds, strict=True))
    fewer = choose(drawn, audit, receipts, max(1, validators - 1), certain=False)
    assert set(found) <= set(fewer) <= set(every)  # who is drawn among many is drawn among few
    assert validators > 1 or found == every
