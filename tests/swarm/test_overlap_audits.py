"""Honest miners of a run with overlap pass every audit of a real validator, and are paid."""

from __future__ import annotations

from pathlib import Path

import pytest

from iota.spec import OuterCodec
from tests.support.cheat_cases import OVERLAP, Case
from tests.support.cheat_runs import run_case


async def _check(codec: OuterCodec, folder: Path) -> None:
    values = {**OVERLAP["values"], "outer": {**OVERLAP["values"]["outer"], "codec": codec}}
    outcome = await run_case(Case({}, more={**OVERLAP, "values": values}), folder / "run")
    assert not outcome.failed, outcome
    assert not outcome.undecided, outcome
    assert not outcome.named, outcome
    assert not outcome.internal_errors, outcome
    assert len(outcome.weights) == 6
    assert min(outcome.weights.values()) > 0, outcome


async def test_a_validator_passes_all_that_honest_miners_begin_with(tmp_path: Path) -> None:
    await _check(OuterCodec.NONE, tmp_path)


@pytest.mark.long
async def test_the_same_with_sparse_contributions_and_error_feedback(tmp_path: Path) -> None:
    await _check(OuterCodec.SPARSE, tmp_path)
