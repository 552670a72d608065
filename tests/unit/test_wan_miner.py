"""A miner without overlap: no op begins while a frame of an earlier one is on its way."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from iota.compute import Microbatch
from iota.compute.state import StageState
from tests.support.paced_engine import Pace
from tests.support.small_runs import sample, small_run
from tests.support.wan_miner import Order, Sends, WaitingEngine
from tests.support.wan_swarms import step_ends

SPEC = small_run(layout={"cuts": [2, 2]})
NO_TIME = Pace(0.0, 0.0, 0.0, 0.0)
WAIT_S = 10.0
SILENT_S = 0.05


def engine(stage: int, sends: Sends) -> WaitingEngine:
    made = WaitingEngine(SPEC, stage, pace=NO_TIME, sends=sends)
    made.load(StageState.initial(SPEC, stage), version=0)
    return made


def waits(sends: Sends) -> bool:
    """Whether an op that began now would wait; it has ended when this returns."""
    began = threading.Event()
    op = threading.Thread(target=lambda: (sends.wait(), began.set()))
    op.start()
    waited = not began.wait(SILENT_S)
    while op.is_alive():
        sends.gone()
        op.join(SILENT_S)
    return waited


def test_ops_that_make_a_frame_hold_up_the_next_until_it_has_arrived() -> None:
    mb, tokens, first, last = Microbatch(0, 0, 0), sample(SPEC)(0, 0, 0), Sends(), Sends()
    sender, receiver = engine(0, first), engine(1, last)
    payload = sender.forward(mb, 0, None, tokens).payload
    assert waits(first)
    gradient = receiver.loss(mb, 0, payload, tokens).payload
    assert waits(last)
    assert gradient is not None
    sender.backward(mb, 0, gradient)  # nobody is sent stage 0's
    assert not waits(first)
    sender.step(0, 1, 0.01)
    assert not waits(first)


def test_a_frame_that_is_sent_again_lets_no_later_op_begin_early() -> None:
    sends = Sends()
    sends.gone()
    sends.made()
    assert waits(sends)


@pytest.mark.parametrize("overlap", [True, False])
def test_an_order_survives_its_command_line(overlap: bool) -> None:
    order = Order("/proc/1/fd/7", Pace(0.1, 0.2, 0.3, 0.4), overlap)
    assert Order.of(order.argument()) == order


def test_a_step_has_ended_when_its_last_miner_says_so(tmp_path: Path) -> None:
    for name, ends in (("a", (1.0, 5.0, 9.0)), ("b", (2.0, 4.0))):
        folder = tmp_path / "nodes" / name
        folder.mkdir(parents=True)
        receipts = [f'x {{"kind": "step", "step": {n}, "ended": {end}}}' for n, end in enumerate(ends)]
        (folder / "receipts.jsonl").write_text("\n".join(["head", *receipts, 'x {"kind": "loss"}', 'x {"ki']))
    assert step_ends(tmp_path) == [2.0, 5.0]
