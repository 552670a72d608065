"""The cache of blocks keeps what was used last, within its bytes on disk and in memory."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from iota.data.block_cache import BlockCache, Name
from iota.data.blocks import BLOCK_BYTES

ROOM = 3 * BLOCK_BYTES


def block(number: int) -> Name:
    return ("shard-00000", number)


def filled(folder: Path, count: int, memory_bytes: int = ROOM) -> BlockCache:
    """A cache that was given blocks 0 to `count` - 1, each full of its own number."""
    cache = BlockCache(folder, ROOM, memory_bytes)
    for number in range(count):
        cache.put(block(number), bytes([number]) * BLOCK_BYTES)
    return cache


def on_disk(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_blocks_used_least_recently_go_from_memory_and_disk(tmp_path: Path) -> None:
    cache = filled(tmp_path, 3)
    assert cache.get(block(0)) is not None
    cache.put(block(3), bytes(BLOCK_BYTES))
    assert [number for number in range(4) if cache.get(block(number)) is not None] == [0, 2, 3]
    assert on_disk(tmp_path) == [f"shard-00000.{number}.block" for number in (0, 2, 3)]


def test_without_memory_blocks_are_on_disk_alone(tmp_path: Path) -> None:
    cache = filled(tmp_path, 1, memory_bytes=0)
    assert cache.get(block(0)) is None
    assert cache.load(block(0)) == bytes(BLOCK_BYTES)


def test_a_block_larger_than_the_cache_is_not_kept_and_displaces_none(tmp_path: Path) -> None:
    cache = filled(tmp_path, 2)
    cache.put(block(9), bytes(ROOM + 1))
    assert cache.get(block(9)) is None
    assert cache.load(block(9)) is None
    assert cache.get(block(0)) is not None


def test_a_later_process_takes_over_the_newest_that_fit_and_no_unfinished_file(tmp_path: Path) -> None:
    filled(tmp_path, 3)
    (tmp_path / ".shard-00000.7.block.0123.part").write_bytes(b"half")
    cache = BlockCache(tmp_path, 2 * BLOCK_BYTES, 0)
    assert on_disk(tmp_path) == ["shard-00000.1.block", "shard-00000.2.block"]
    assert cache.load(block(2)) == bytes([2]) * BLOCK_BYTES


def test_a_dropped_block_is_gone_from_disk(tmp_path: Path) -> None:
    cache = filled(tmp_path, 1)
    cache.drop(block(0))
    assert cache.load(block(0)) is None
    assert on_disk(tmp_path) == []


def test_a_full_disk_costs_the_copy_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    cache = filled(tmp_path, 1)
    assert cache.get(block(0)) == bytes(BLOCK_BYTES)
    assert cache.load(block(0)) is None
    assert on_disk(tmp_path) == []
    assert "free some space" in caplog.text
