"""A miner's data directory: bases are whole or absent, and what audits no longer need goes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import miner.disk
from iota.objects import part_count
from iota.outer.base import base_parts, base_roots, initial_base
from iota.outer.partition import PartError
from miner.disk import MinerDisk
from tests.support.damage import DAMAGES, Damage
from tests.support.frames import frame_name
from tests.support.small_spec import small_spec

SPEC = small_spec()
BASE = initial_base(SPEC, 0)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[MinerDisk]:
    with MinerDisk(tmp_path / "data") as made:
        yield made


def _keep(disk: MinerDisk, epoch: int) -> None:
    """A base with its start state."""
    disk.save_base(SPEC, epoch, BASE, base_roots(SPEC, BASE))
    disk.start_state(epoch).parent.mkdir(parents=True, exist_ok=True)
    disk.start_state(epoch).write_bytes(b"state")


def test_a_base_reads_back_to_the_same_digest_and_may_be_saved_again(disk: MinerDisk) -> None:
    for _ in range(2):
        disk.save_base(SPEC, 0, BASE, base_roots(SPEC, BASE))
    base, roots = disk.load_base(SPEC, 0, 0)
    assert roots == base_roots(SPEC, base) == base_roots(SPEC, BASE)


def test_a_base_of_more_than_a_thousand_parts_reads_back_in_their_order(disk: MinerDisk) -> None:
    spec = small_spec(outer={"part_elements": 10})
    assert part_count(spec, 0) > 1001
    disk.save_base(spec, 0, BASE, base_roots(spec, BASE))
    assert np.array_equal(disk.load_base(spec, 0, 0)[0].weights, BASE.weights)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["part-000.safetensors", "digest"])
def test_a_base_that_was_damaged_on_disk_is_noticed(disk: MinerDisk, name: str, damage: Damage) -> None:
    disk.save_base(SPEC, 0, BASE, base_roots(SPEC, BASE))
    damage(disk.root / "base" / "0" / name)
    with pytest.raises(PartError):
        disk.load_base(SPEC, 0, 0)


def test_the_newest_base_is_one_whose_start_state_is_there_too(disk: MinerDisk) -> None:
    assert disk.newest_base() is None
    _keep(disk, 0)
    disk.save_base(SPEC, 1, BASE, base_roots(SPEC, BASE))
    assert disk.newest_base() == 0


def test_a_crash_while_a_base_is_written_leaves_the_one_before(
    disk: MinerDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    _keep(disk, 0)
    disk.start_state(1).parent.mkdir(parents=True)
    disk.start_state(1).write_bytes(b"state")

    def torn(*_: object) -> Iterator[bytes]:
        yield base_parts(SPEC, BASE)[0]
        raise OSError("no space left")

    monkeypatch.setattr(miner.disk, "base_parts", torn)
    with pytest.raises(OSError, match="no space"):
        disk.save_base(SPEC, 1, BASE, base_roots(SPEC, BASE))
    assert disk.newest_base() == 0


def test_snapshots_that_are_deleted_while_they_are_counted_count_as_nothing(
    disk: MinerDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    _keep(disk, 0)
    walk = list(os.walk(disk.root / "snapshots"))
    disk.forget_epoch(0)
    monkeypatch.setattr(os, "walk", lambda _: walk)
    assert disk.snapshots_size() == 0


def test_an_epoch_and_a_state_that_are_forgotten_leave_the_receipts(disk: MinerDisk) -> None:
    for epoch in (0, 1):
        _keep(disk, epoch)
    disk.receipts.write_bytes(b"receipts")
    size = disk.snapshots_size()
    disk.forget_epoch(0)
    assert (disk.newest_base(), disk.snapshots_size()) == (1, size // 2)
    disk.forget_state()
    assert (disk.newest_base(), disk.snapshots_size()) == (None, 0)
    assert disk.receipts.read_bytes() == b"receipts"


def test_evidence_of_open_epochs_outlives_a_lost_state(disk: MinerDisk) -> None:
    for epoch in (0, 1, 2):
        _keep(disk, epoch)
        disk.snapshot(epoch, 3).write_bytes(b"snapshot")
        disk.save_frame(frame_name(epoch=epoch), b"frame")
    disk.forget_state()
    disk.forget_other_epochs((1, 2))
    assert disk.newest_base() is None
    assert [disk.snapshot(epoch, 3).exists() for epoch in (0, 1, 2)] == [False, True, True]
    assert [disk.frame(frame_name(epoch=epoch)).exists() for epoch in (0, 1, 2)] == [False, True, True]


def test_frames_stay_until_the_audits_of_their_epoch_close(disk: MinerDisk) -> None:
    """Those sent and those received alike: an audit, and a re-route, may ask for either."""
    assert not disk.has_frames()
    names = [frame_name(epoch=epoch, stage=stage) for epoch in (0, 1) for stage in (0, 1)]
    for name in names:
        disk.save_frame(name, b"frame")
    assert disk.has_frames()
    disk.forget_epoch(0)
    assert [disk.frame(name).exists() for name in names] == [False, False, True, True]
