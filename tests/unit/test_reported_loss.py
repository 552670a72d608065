"""What an export states as the held-out loss that the run has measured of its base."""

from __future__ import annotations

from iota.exporting.evaluation import reported
from tests.support.small_runs import small_run

STATUS = {"heldout": {"1": 3.25}, "heldout_error": {"1": 0.1}, "heldout_tokens": {"1": 64}}


def test_the_loss_of_an_epochs_first_version_is_that_of_its_base() -> None:
    found = reported(small_run(), STATUS, 1)
    assert found is not None
    assert found.loss == 3.25
    assert reported(small_run(), STATUS, 2) is None


def test_with_overlap_it_is_of_own_starts_and_of_no_base() -> None:
    assert reported(small_run(outer={"overlap": "one_epoch"}), STATUS, 1) is None
