"""Shared variables while the orchestrator is killed: what clients saw is linearizable."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.bridge_histories import record


@pytest.mark.parametrize(
    ("operations", "kills"),
    [
        pytest.param(800, 1, id="short"),
        pytest.param(10_000, 3, id="10,000 operations", marks=pytest.mark.long),
    ],
)
async def test_the_history_of_eight_clients_is_linearizable(
    operations: int, kills: int, tmp_path: Path
) -> None:
    found = await record(tmp_path / "journal.db", clients=8, operations=operations, kills=kills, seed=7)
    assert len(found.operations) > 0.95 * operations
    assert found.unknown < 0.05 * operations
    assert found.is_linearizable()
