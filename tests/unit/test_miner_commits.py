"""COMMITs of a miner: which versions, of what, in which order, and beside the device thread."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from iota.compute import Microbatch
from iota.compute.commitment import commitment, tensors_root
from iota.compute.engine import Engine
from iota.compute.fingerprint import fingerprint
from iota.compute.host_copy import HostCopy
from iota.compute.state import StageState, load_state
from iota.planning.needs import STATE_COPIES
from iota.protocol.fingerprints import Fingerprint, fingerprint_nonce
from iota.protocol.merkle import EMPTY, merkle_root
from iota.protocol.receipts import Beginning, Commitment, OpKind
from iota.spec import RunSpec
from miner.committer import CommitterClosed
from miner.ops import StateLost
from tests.support.one_stage_miners import KEY, OneStageMiner, one_stage
from tests.support.small_runs import sample

SPEC = one_stage()
Open = Callable[..., OneStageMiner]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Open]:
    opened: list[OneStageMiner] = []

    def start(spec: RunSpec = SPEC, **options: Any) -> OneStageMiner:
        """A process on the same disk, after the end of the one before; it has loaded the start state."""
        for before in opened[-1:]:
            before.close()
        opened.append(OneStageMiner(tmp_path, spec, **options))
        opened[-1].load()
        return opened[-1]

    yield start
    opened[-1].close()


class Gate:
    """Holds back the hashing of each commitment until it is let through; counts what has begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = threading.Semaphore(0)
        self._let = threading.Semaphore(0)
        monkeypatch.setattr("miner.committer.commitment", self._commitment)

    def _commitment(self, *given: Any) -> Commitment:
        self.begun.release()
        self._let.acquire()
        return commitment(*given)

    def open(self, count: int = 100) -> None:
        self._let.release(count)


def versions(miner: OneStageMiner) -> list[int]:
    return [receipt.version for receipt in miner.of(OpKind.COMMIT)]


def weights_after(spec: RunSpec, steps: int) -> dict[int, str]:
    """Root of the weights of each version up to `steps`, by a plain engine."""
    engine = Engine(spec, 0)
    engine.load(StageState.initial(spec, 0), version=0)
    part = spec.outer.part_elements
    found = {0: tensors_root(engine.state().weights, part)}
    for step in range(steps):
        engine.loss(Microbatch(0, step, 0), spec.weight_version(step), None, sample(spec)(0, step, 0))
        engine.step(step, 1, 0.01)
        found[step + 1] = tensors_root(engine.state().weights, part)
    return found


@pytest.mark.parametrize(("joined", "expected"), [(0, [0, 5, 7]), (3, [3, 5, 7]), (5, [5, 7]), (7, [7])])
def test_the_first_version_each_fifth_and_the_last_are_committed_in_order(
    start: Open, joined: int, expected: list[int]
) -> None:
    miner = start(joined=joined)
    miner.train(joined, 7)
    miner.settle()
    assert versions(miner) == expected
    kept = sorted(int(path.stem) for path in miner.disk.snapshot(0, 0).parent.glob("[0-9]*.safetensors"))
    assert kept == expected


def test_a_commit_is_of_the_weights_at_its_version_and_of_those_before(start: Open) -> None:
    miner = start()
    miner.train(0, 7)
    miner.settle()
    roots = weights_after(SPEC, 7)
    made = {receipt.version: receipt.commitment for receipt in miner.of(OpKind.COMMIT)}
    assert {v: c.weights for v, c in made.items() if c} == {v: roots[v] for v in (0, 5, 7)}
    assert {v: c.before for v, c in made.items() if c} == {0: EMPTY, 5: roots[4], 7: roots[6]}


def test_a_run_in_sync_commits_to_no_weights_before(start: Open) -> None:
    miner = start(one_stage(pipeline="sync"))
    miner.train(0, 7)
    miner.settle()
    assert [r.commitment.before for r in miner.of(OpKind.COMMIT) if r.commitment] == [EMPTY] * 3


def test_the_snapshot_has_the_roots_of_the_receipt(start: Open) -> None:
    miner = start()
    miner.train(0, 7)
    miner.settle()
    for receipt in miner.of(OpKind.COMMIT):
        state = load_state(miner.disk.snapshot(0, receipt.version), SPEC, 0)
        assert receipt.commitment is not None
        begun = receipt.commitment.beginning
        assert commitment(state, SPEC.outer.part_elements, begun) == receipt.commitment
        assert receipt.output == receipt.commitment.root
        assert 0 < receipt.started <= receipt.ended


def test_ops_go_on_while_a_commitment_is_made(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    miner = start()
    miner.train(0, 6)  # versions 0 and 5: both copies are taken, and nothing is hashed
    assert versions(miner) == []
    assert len(miner.of(OpKind.STEP)) == 6
    gate.open()
    miner.settle()
    assert versions(miner) == [0, 5]
    assert [receipt.kind for receipt in miner.receipts][-3:] == [OpKind.STEP, OpKind.COMMIT, OpKind.COMMIT]


def test_a_third_copy_waits_for_one_of_two(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    gate, copies = Gate(monkeypatch), 0
    miner = start()
    copy_state = miner.runner.engine.copy_state

    def counted() -> HostCopy:
        nonlocal copies
        copies += 1
        return copy_state()

    monkeypatch.setattr(miner.runner.engine, "copy_state", counted)
    miner.train(0, 6)
    miner.op(6)
    with ThreadPoolExecutor(1) as device:
        third = device.submit(miner.step, 6)
        assert gate.begun.acquire(timeout=60)
        with pytest.raises(TimeoutError):
            third.result(0.2)
        assert copies == STATE_COPIES - 1, "the start state is on the host already"
        gate.open(1)
        third.result(60)
        assert copies == STATE_COPIES
    gate.open()
    miner.settle()
    assert versions(miner) == [0, 5, 7]


def test_the_end_of_a_life_ends_the_wait_for_a_copy(start: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    miner = start()
    miner.train(0, 6)
    miner.op(6)
    with ThreadPoolExecutor(2) as threads:
        third = threads.submit(miner.step, 6)
        assert gate.begun.acquire(timeout=60)
        closing = threads.submit(miner.runner.close)
        with pytest.raises(CommitterClosed):
            third.result(60)
        gate.open()
        closing.result(60)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("committer")]


def test_after_a_crash_between_step_and_commit_the_commit_is_made_anew(start: Open) -> None:
    miner = start()
    miner.settle()
    miner.train(0, 6)  # the COMMIT of version 5 is not written
    before = miner.receipts
    miner = start()
    miner.train(0, 7)
    miner.settle()
    assert miner.receipts[: len(before)] == before
    assert versions(miner) == [0, 5, 7]
    assert [receipt.step for receipt in miner.of(OpKind.STEP)] == list(range(7))


def test_a_commit_that_is_repeated_to_the_bit_has_no_second_receipt(start: Open) -> None:
    miner = start()
    miner.train(0, 7)
    miner.settle()
    before = miner.receipts
    miner = start()
    miner.train(0, 7)
    miner.runner.log.forget_before(1)  # the merge was applied meanwhile
    miner.settle()
    assert miner.receipts == before


@pytest.mark.parametrize("joined", [0, 3])
def test_a_life_shows_its_device_with_its_base_and_nowhere_else(start: Open, joined: int) -> None:
    miner = start(joined=joined)
    miner.train(joined, 7)
    miner.settle()
    first, *others = [receipt.commitment for receipt in miner.of(OpKind.COMMIT)]
    assert first is not None
    nonce = fingerprint_nonce(SPEC.id, 0, merkle_root([first.weights, EMPTY]), KEY.ss58)
    assert first.nonce(SPEC.id, 0, KEY.ss58) == nonce
    assert first.beginning == Beginning(rest=EMPTY, fingerprint=fingerprint(SPEC, 0, "cpu", nonce))
    assert [each.beginning for each in others if each] == [None] * len(others)


def test_a_device_that_shows_other_bits_after_a_restart_loses_the_state(
    start: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    miner = start()
    miner.settle()
    other = Fingerprint(forward="1" * 64, backward="2" * 64, step="3" * 64, wide="4" * 64)
    monkeypatch.setattr("miner.ops.fingerprint", lambda *_: other)
    miner = start()
    with pytest.raises(StateLost, match="commit 0/0 no longer gives"):
        miner.settle()
    miner = start(resumes=False)
    miner.settle()
    assert versions(miner) == [0, 0]


def test_a_commit_that_differs_from_its_receipt_loses_the_state(
    start: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    miner = start()
    miner.settle()
    other = Commitment(weights="1" * 64, moments="2" * 64)
    monkeypatch.setattr("miner.committer.commitment", lambda *_: other)
    miner = start()
    with pytest.raises(StateLost, match="commit 0/0 no longer gives"):
        miner.settle()


def test_a_new_life_may_commit_to_another_state_of_the_same_version(start: Open) -> None:
    miner = start()
    miner.train(0, 6)
    miner.settle()
    miner = start(joined=5)  # it has lost its state, and its version 5 is the base
    with pytest.raises(StateLost, match="commit 5/0 no longer gives"):
        miner.settle()
    miner = start(joined=5, resumes=False)
    miner.settle()
    assert versions(miner) == [0, 5, 5]


@pytest.mark.parametrize(("room", "remedy"), [(1, "raise --snapshot-bytes"), (None, "make room on its disk")])
def test_without_room_for_its_snapshot_a_version_is_committed_all_the_same(
    start: Open,
    room: int | None,
    remedy: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("miner.disk.MinerDisk.has_room", lambda *_: room is not None)
    miner = start(snapshots=room)
    miner.settle()
    assert versions(miner) == [0]
    assert not miner.disk.snapshot(0, 0).exists()
    assert remedy in caplog.text


def test_a_disk_that_fills_while_a_snapshot_is_written_is_an_error_and_the_copy_is_free(
    start: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr("miner.committer.save_state", full)
    miner = start()
    miner.train(0, 7)  # all copies come free
    with pytest.raises(OSError, match="no space"):
        miner.settle()
    assert versions(miner) == []
    monkeypatch.undo()
    miner = start()
    miner.train(0, 7)
    miner.settle()
    assert versions(miner) == [0, 5, 7]
