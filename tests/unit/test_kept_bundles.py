"""Which bundles a validator writes, and how many it keeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from iota.protocol.messages import AuditKind
from tests.support.audited_runs import World
from tests.support.bundles import (
    BLOCK_HASH,
    CHEAT,
    Desk,
    cheated_world,
    signed_seal,
)
from validator.bundles import keeper


@pytest.fixture(scope="module")
def cheated() -> World:
    return cheated_world()


@pytest.fixture
async def desk(cheated: World, tmp_path: Path) -> Desk:
    return await Desk.over(cheated, tmp_path)


@pytest.fixture
async def bundle(desk: Desk) -> Path:
    """Of a FAIL of the cheat's first drawn op."""
    return await desk.accuse(CHEAT)


async def test_what_does_not_fit_is_not_written_and_the_log_says_so(
    cheated: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = await Desk.over(cheated, tmp_path, limit=10_000)
    task = desk.drawn(CHEAT)
    assert await desk.file(CHEAT, task, await desk.audit(CHEAT, task)) is None
    assert "nobody can repeat that verdict" in caplog.text
    assert list((tmp_path / "verdicts").iterdir()) == []


async def test_the_oldest_bundles_go_first(desk: Desk, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "KEPT_BYTES", keeper.MAX_BUNDLE_BYTES + bundle.stat().st_size - 1)
    newer = await desk.accuse(CHEAT, AuditKind.SEGMENT)
    assert newer.exists()
    assert not bundle.exists()


async def test_an_epoch_gets_a_bounded_number_of_bundles(
    desk: Desk, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "BUNDLES_AN_EPOCH", 1)
    task = desk.drawn(CHEAT, AuditKind.SEGMENT)
    assert await desk.file(CHEAT, task, await desk.audit(CHEAT, task)) is None


async def test_no_bundle_is_written_before_the_hash_of_the_seals_block_is_known(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    task, seal = desk.drawn(CHEAT), signed_seal(desk.world, 0)
    found = await desk.audit(CHEAT, task)
    desk.keeper.began(desk.bench.sealed, seal)
    desk.keeper.drawn(seal.seal.block + 1, BLOCK_HASH)
    assert await desk.file(CHEAT, task, found) is None
    assert "gets no file" in caplog.text
    desk.keeper.drawn(seal.seal.block, BLOCK_HASH)
    assert await desk.file(CHEAT, task, found) is not None


async def test_a_pass_leaves_no_bundle(desk: Desk) -> None:
    task = desk.drawn(0)
    assert await desk.file(0, task, await desk.audit(0, task)) is None
