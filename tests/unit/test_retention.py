"""What is deleted when the audits of an epoch are closed, in runs with overlap and without."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from iota.spec import Overlap, RunSpec
from orchestrator.coordinator.sealing import deleted_prefixes, freed, is_unneeded
from tests.support.small_runs import small_run

EPOCHS = 6
ORDERS = st.permutations(range(EPOCHS))


def _spec(overlap: Overlap, **schedule: int) -> RunSpec:
    return small_run(outer={"overlap": overlap}, schedule={"epochs": EPOCHS, **schedule})


@given(ORDERS)
def test_an_epochs_base_and_merge_go_once_when_no_audit_needs_them(order: list[int]) -> None:
    """The audits of an epoch need the base before it, and what replicas contributed to that one's merge."""
    spec, closed, gone = _spec(Overlap.ONE_EPOCH), set(), []
    for epoch in order:
        closed.add(epoch)
        gone += freed(spec, epoch, closed)
        for number in range(EPOCHS):
            needed = {number, min(number + 1, EPOCHS - 1)}
            assert (number in gone) == (needed <= closed) == is_unneeded(spec, number, closed)
    assert sorted(gone) == list(range(EPOCHS))


@given(ORDERS)
def test_without_overlap_they_go_with_the_epochs_own_audits(order: list[int]) -> None:
    spec, closed = _spec(Overlap.NONE), set()
    for epoch in order:
        closed.add(epoch)
        assert freed(spec, epoch, closed) == [epoch]


def test_frames_and_evidence_go_first_and_contributions_an_epoch_later() -> None:
    spec = _spec(Overlap.ONE_EPOCH)
    own = {f"{spec.id}/{kind}/1/" for kind in ("frames", "audit")}
    before = {f"{spec.id}/{kind}/0/" for kind in ("delta", "merged", "base")}
    assert set(deleted_prefixes(spec, 0, {0})) == {f"{spec.id}/{kind}/0/" for kind in ("frames", "audit")}
    assert set(deleted_prefixes(spec, 1, {0, 1})) == own | before


def test_a_base_that_is_kept_stays() -> None:
    spec = _spec(Overlap.ONE_EPOCH, keep_every=2)
    closed = set(range(EPOCHS))
    bases = {p for epoch in range(EPOCHS) for p in deleted_prefixes(spec, epoch, closed) if "/base/" in p}
    assert bases == {f"{spec.id}/base/{epoch}/" for epoch in range(EPOCHS) if not spec.keeps_base(epoch)}
