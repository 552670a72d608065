"""Each cheat of docs/threat-model.md as a real miner in a swarm, beside honest ones and a real validator.

`./scripts/test -m long` runs all of them; without it those run that no other test of this folder has.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cheat_cases import CASES, Case
from tests.support.cheat_runs import faults, run_case

SHORT = (
    "no work after the base, and no snapshot",
    "frames that are not stored, and constants",
    "three mergers against one",
    "denied frames",
    "never steps, and nudges one weight",
    "another start than its contribution gives",
    "noise of the result's norm, as another device class",
)
"""Cheats in the short form: one each of evidence, collusion, merges, words, states, starts and classes."""


async def _check(case: Case, folder: Path) -> None:
    outcome = await run_case(case, folder / "run")
    assert not faults(case, outcome), outcome


@pytest.mark.parametrize("name", SHORT)
async def test_a_cheat_loses_its_weight_and_the_honest_are_paid(name: str, tmp_path: Path) -> None:
    await _check(CASES[name], tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in CASES if name not in SHORT])
async def test_every_cheat_loses_its_weight_and_the_honest_are_paid(name: str, tmp_path: Path) -> None:
    await _check(CASES[name], tmp_path)
