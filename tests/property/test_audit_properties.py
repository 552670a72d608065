"""Properties of scores and draws that hold for all records."""

from __future__ import annotations

import random

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from iota.protocol.receipts import OpKind, Receipt
from iota.spec import AuditSpec
from validator.core.draw import choose
from validator.core.scoring import MinerWork, scores, validity

HOTKEYS = "abcdef"
entries = st.builds(
    MinerWork,
    epoch=st.integers(0, 20),
    hotkey=st.sampled_from(HOTKEYS),
    flops=st.integers(0, 10**18),
    ended=st.integers(0, 100),
    withdrawn=st.integers(0, 100),
    unproven=st.booleans(),
)
works = st.lists(entries, max_size=30, unique_by=lambda w: (w.epoch, w.hotkey))
failures = st.dictionaries(st.sampled_from(HOTKEYS), st.lists(st.integers(0, 20), min_size=1, max_size=4))
audits = st.builds(AuditSpec, window=st.integers(1, 8), burn=st.floats(0, 1))
nows = st.integers(0, 25)


@given(audits, nows, works, failures, st.randoms())
def test_scores_do_not_depend_on_the_order_of_records(
    audit: AuditSpec, now: int, work: list[MinerWork], failed: dict[str, list[int]], rng: random.Random
) -> None:
    shuffled = work[:]
    rng.shuffle(shuffled)
    assert scores(audit, now, work, failed) == scores(audit, now, shuffled, failed)


@given(audits, nows, works, failures)
def test_weights_add_up_to_what_is_not_burned_or_to_nothing(
    audit: AuditSpec, now: int, work: list[MinerWork], failed: dict[str, list[int]]
) -> None:
    found = scores(audit, now, work, failed)
    total = sum(score.weight for score in found)
    assert all(score.weight >= 0 for score in found)
    expected = 1 - audit.burn if any(score.score > 0 for score in found) else 0.0
    assert abs(total - expected) < 1e-9


@given(audits, nows, works, failures)
def test_who_failed_within_the_window_has_no_weight(
    audit: AuditSpec, now: int, work: list[MinerWork], failed: dict[str, list[int]]
) -> None:
    for score in scores(audit, now, work, failed):
        if any(now - audit.window < epoch <= now for epoch in failed.get(score.hotkey, ())):
            assert score.weight == 0


@given(audits, nows, works, failures, st.sampled_from(HOTKEYS))
def test_more_proven_work_never_lowers_a_score(
    audit: AuditSpec, now: int, work: list[MinerWork], failed: dict[str, list[int]], hotkey: str
) -> None:
    def score(given: list[MinerWork]) -> float:
        return next((s.score for s in scores(audit, now, given, failed) if s.hotkey == hotkey), 0.0)

    rest = [w for w in work if (w.epoch, w.hotkey) != (now, hotkey)]
    more = MinerWork(now, hotkey, 10**6, ended=1, withdrawn=0)
    assert score([*rest, more]) >= score(rest)


@given(st.lists(st.integers(0, 20), max_size=5), st.integers(1, 8))
def test_validity_is_within_bounds_and_comes_back(failed: list[int], window: int) -> None:
    course = [validity(failed, now, window) for now in range(10_000)]
    assert all(0 <= value <= 1 for value in course)
    assert course[-1] == 1


@given(
    st.binary(min_size=1, max_size=32),
    st.lists(st.integers(0, 2), max_size=12),
    st.integers(0, 4),
    st.integers(0, 4),
    st.randoms(),
)
def test_a_draw_is_reproducible_without_repeats_and_covers_later_versions(
    seed: bytes, versions: list[int], ops: int, steps: int, rng: random.Random
) -> None:
    receipts = [
        Receipt(
            seq=n + 1, epoch=0, step=version, microbatch=n, stage=0, kind=OpKind.FORWARD, version=version,
            output="0" * 64, started=0, ended=0, device="cpu",
        )
        for n, version in enumerate(versions)
    ]  # fmt: skip
    audit, drawn = AuditSpec(ops=ops), blake3(seed).digest()
    found = choose(drawn, audit, receipts, range(steps), 0)
    shuffled = receipts[:]
    rng.shuffle(shuffled)
    assert choose(drawn, audit, shuffled, list(reversed(range(steps))), 0) == found
    assert len({r.seq for r in found.ops}) == len(found.ops) == min(ops, len(receipts))
    assert found.step is None or found.step in range(steps)
    if ops and any(versions):
        assert any(r.version > 0 for r in found.ops)
