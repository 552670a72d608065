"""Ops on a replica's device: what is on disk afterwards, and what a repeated op may give."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from iota.compute.engine import Engine
from iota.compute.errors import BadValueError
from iota.compute.state import StageState
from iota.identity.keys import Hotkey
from iota.outer.base_values import BaseRoots
from iota.protocol.merkle import EMPTY
from iota.protocol.receipts import OpKind, Receipt
from iota.spec import RunSpec
from iota.wire.frame import Frame, decode_frame
from iota.wire.transport import OutgoingFrame
from miner.core.schedule import Op
from miner.disk import MinerDisk
from miner.op_records import StateLost
from miner.ops import Inputs, OpRunner
from miner.receipt_file import parse_line
from miner.receipt_log import ReceiptLog
from tests.support.damage import DAMAGES, Damage
from tests.support.frames import op_input
from tests.support.small_spec import small_spec

SPEC = small_spec()
KEYS = [Hotkey.from_seed(bytes([n]) * 32) for n in (1, 2)]


class Pair:
    """Both stages of a run in one process; `restart` begins a process of stage 0 anew on its disk."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.first, self.last = self._open(0), self._open(1)
        shape = (SPEC.data.sequences, SPEC.data.sequence_length + 1)
        rng = np.random.default_rng(1)
        tokens = [rng.integers(0, SPEC.model.vocab_size, shape) for _ in range(SPEC.schedule.microbatches)]
        self.inputs = [{(0, n): Inputs(tokens=t) for n, t in enumerate(tokens)} for _ in KEYS]

    def _open(self, stage: int, spec: RunSpec = SPEC) -> OpRunner:
        disk = MinerDisk(self._root / str(stage))
        log = ReceiptLog(disk.receipts, spec.id, KEYS[stage])
        engine = Engine(spec, stage)
        runner = OpRunner(spec, stage, KEYS[stage], engine, log, disk, "cpu", snapshot_bytes=1 << 30)
        runner.load(0, 0, StageState.initial(spec, stage), BaseRoots("ab" * 32, EMPTY))
        return runner

    def restart(self) -> None:
        _close(self.first)
        self.first = self._open(0)

    def forward(self, index: int) -> OutgoingFrame:
        frame = self.first.launch(_op(OpKind.FORWARD, index), self.inputs[0], KEYS[1].ss58).result()
        assert frame is not None
        self.inputs[1][0, index].stage_input = op_input(frame.data, SPEC)
        return frame

    def backward(self, index: int) -> None:
        """LOSS at the last stage, and BACKWARD at the first."""
        frame = self.last.launch(_op(OpKind.LOSS, index), self.inputs[1], KEYS[0].ss58).result()
        assert frame is not None
        self.inputs[0][0, index].gradient = op_input(frame.data, SPEC)
        self.backward_again(index)

    def backward_again(self, index: int) -> None:
        """BACKWARD at the first stage alone, from the gradient that is there."""
        assert self.first.launch(_op(OpKind.BACKWARD, index), self.inputs[0], None).result() is None

    def step(self, *counted: int) -> None:
        op = Op(OpKind.STEP, 0, 0, 0, counted=tuple((n, 0) for n in counted), learning_rate=0.1)
        assert self.first.launch(op, self.inputs[0], None).result() is None

    @property
    def receipts(self) -> list[Receipt]:
        """Of stage 0, from its disk."""
        lines = self.first.disk.receipts.read_bytes().splitlines()[1:]
        return [parse_line(Receipt, line)[0] for line in lines]


def _op(kind: OpKind, index: int) -> Op:
    return Op(kind, 0, 0, 0, microbatch=index)


def _decoded(frame: OutgoingFrame) -> Frame:
    return decode_frame(frame.data, SPEC)


def _close(runner: OpRunner) -> None:
    runner.close()
    runner.log.close()
    runner.disk.__exit__()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    _close(made.first)
    _close(made.last)


def test_a_forward_leaves_its_signed_frame_and_its_receipt_on_disk(pair: Pair) -> None:
    frame = pair.forward(0)
    header = _decoded(frame).header
    assert (header.sender, header.receiver) == (KEYS[0].ss58, KEYS[1].ss58)
    assert pair.first.disk.frame(frame.notice.name).read_bytes() == frame.data
    [receipt] = pair.receipts
    assert (receipt.kind, receipt.output, receipt.tokens) == (
        OpKind.FORWARD,
        header.payload,
        SPEC.data.tokens,
    )


def test_a_backward_names_the_frames_that_it_used(pair: Pair) -> None:
    pair.forward(0)
    pair.backward(0)
    gradient = pair.inputs[0][0, 0].gradient
    assert gradient is not None
    assert [r.inputs for r in pair.receipts] == [(), (gradient.signed_header,)]


def test_after_a_restart_an_op_gives_the_same_frame_and_no_second_receipt(pair: Pair) -> None:
    before = pair.forward(0)
    pair.restart()
    assert pair.forward(0) == before
    assert len(pair.receipts) == 1


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_frame_that_was_damaged_on_disk_is_made_anew(pair: Pair, damage: Damage) -> None:
    before = pair.forward(0)
    damage(pair.first.disk.frame(before.notice.name))
    pair.restart()
    after = pair.forward(0)
    assert _decoded(after).header == _decoded(before).header
    assert len(pair.receipts) == 1


def test_a_frame_on_disk_is_sent_again_where_its_receipt_was_lost(pair: Pair) -> None:
    """The store may have the frame: another signature would make other bytes under its key."""
    before = pair.forward(0)
    pair.first.disk.receipts.unlink()
    pair.restart()
    assert pair.forward(0) == before


def test_a_result_that_differs_from_its_receipt_loses_the_state(pair: Pair) -> None:
    pair.forward(0)
    pair.restart()
    pair.inputs[0][0, 0].tokens = np.zeros_like(pair.inputs[0][0, 0].tokens)
    with pytest.raises(StateLost, match="no longer gives the result"):
        pair.forward(0)


def test_a_step_sums_again_where_another_order_counts_than_was_run(pair: Pair) -> None:
    for index in (0, 1):
        pair.forward(index)
        pair.backward(index)
    pair.step(1, 0)
    pair.restart()
    for index in (1, 0):
        pair.forward(index)
        pair.backward_again(index)
    pair.step(1, 0)  # held against the receipt: the same gradient
    assert [r.kind for r in pair.receipts].count(OpKind.STEP) == 1


def test_a_step_sums_again_after_an_overflow_in_a_microbatch_that_does_not_count(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.forward(0)
    pair.backward(0)
    pair.step(0)
    expected = pair.receipts[-1]
    pair.restart()
    for index in (0, 1):
        pair.forward(index)
    pair.backward_again(0)
    pair.inputs[0][0, 1].gradient = pair.inputs[0][0, 0].gradient
    with monkeypatch.context() as overflow:
        overflow.setattr("iota.compute.accumulate.magnitude", lambda _: torch.tensor(math.inf))
        with pytest.raises(BadValueError):
            pair.backward_again(1)
    pair.step(0)  # held against the receipt: the same gradient
    assert expected in pair.receipts


def test_a_step_of_a_microbatch_whose_inputs_are_gone_loses_the_state(pair: Pair) -> None:
    pair.forward(0)
    pair.backward(0)
    del pair.inputs[0][0, 1]
    with pytest.raises(StateLost, match="its inputs are gone"):
        pair.step(0, 1)


def test_an_absurd_loss_is_a_bad_value(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.forward(0)
    monkeypatch.setattr("miner.ops.MAX_LOSS", 0.1)
    with pytest.raises(BadValueError, match="nats a token"):
        pair.backward(0)
    assert pair.last.log.count == 0
