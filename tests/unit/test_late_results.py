"""A miner's ops on a device whose results come late: what is recorded, and what ends a life."""

from __future__ import annotations

import errno
import math
import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from iota.compute.engine import Engine
from iota.compute.errors import BadValueError
from iota.compute.names import Microbatch
from iota.compute.output import DeviceOutput
from iota.compute.state import tensors_digest
from iota.protocol.receipts import OpKind
from miner.op_records import StateLost
from tests.support.late_results import Bad, LateReplica, late_spec

LIMIT_S = 60
F, B = OpKind.FORWARD, OpKind.BACKWARD


class Lives:
    """Replicas one after another, each with a disk of its own unless it goes on from the one before."""

    def __init__(self, root: Path) -> None:
        self._root, self._opened = root, list[LateReplica]()

    def start(self, pipeline: str = "sync", bad: Bad | None = None) -> LateReplica:
        self._opened.append(LateReplica(self._root / str(len(self._opened)), late_spec(pipeline), bad))
        return self._opened[-1]

    def restart(self) -> LateReplica:
        before = self._opened.pop()
        before.close()
        self._opened.append(LateReplica(before.disk.root, before.spec))
        return self._opened[-1]

    def close(self) -> None:
        for replica in self._opened:
            replica.close()


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    made = Lives(tmp_path)
    yield made
    made.close()


def ends(replica: LateReplica, *recorded: Future[Any]) -> list[str]:
    """The results come to the host; how each op ends."""
    found = []
    for each in recorded:
        replica.gate.let()
        error = each.exception(LIMIT_S)
        found.append("done" if error is None else type(error).__name__)
    return found


def weights(replica: LateReplica) -> str:
    return tensors_digest(replica.runner.engine.state().weights)


def test_ops_start_before_the_results_of_those_before_and_are_recorded_in_their_order(lives: Lives) -> None:
    replica = lives.start()
    recorded = [replica.launch(F, 0, index) for index in (2, 0, 1)]
    assert not any(each.done() for each in recorded)
    assert replica.receipts == []
    assert ends(replica, *recorded) == ["done"] * 3
    assert [receipt.microbatch for receipt in replica.receipts] == [2, 0, 1]
    times = [(receipt.started, receipt.ended) for receipt in replica.receipts]
    assert all(a[1] <= b[0] for a, b in pairwise(times)), "a device does one op at a time"


@pytest.mark.parametrize("later", [1, 2])
def test_a_bad_value_that_is_noticed_ops_later_drops_its_own_microbatch_alone(
    lives: Lives, later: int
) -> None:
    found = []
    for at_once in (1, 1 + later):
        replica = lives.start(bad={(0, 0, B): math.nan})
        assert ends(replica, *[replica.launch(F, 0, index) for index in range(3)]) == ["done"] * 3
        outcomes: list[str] = []
        waiting = list(range(3))
        while waiting:
            batch, waiting = waiting[:at_once], waiting[at_once:]
            outcomes += ends(replica, *[replica.launch(B, 0, index) for index in batch])
        assert outcomes == ["BadValueError", "done", "done"]
        assert ends(replica, replica.step(0, 1, 2)) == ["done"]
        found.append((replica.results, weights(replica)))
    assert found[0] == found[1]


@pytest.mark.parametrize("value", [math.inf, 1e38])
def test_a_bad_value_of_the_next_step_leaves_the_step_that_is_applied_meanwhile_alone(
    lives: Lives, value: float
) -> None:
    """`delayed`: two steps are open. STEP 0 starts while nobody knows yet that step 1 has a bad gradient."""
    found = []
    for late in (False, True):
        replica = lives.start("delayed", {(1, 0, B): value})
        for kind in (F, B):
            assert ends(replica, *[replica.launch(kind, 0, index) for index in range(3)]) == ["done"] * 3
        assert ends(replica, replica.launch(F, 1, 0), replica.launch(F, 1, 1)) == ["done"] * 2
        bad = replica.launch(B, 1, 0)
        outcomes = [] if late else ends(replica, bad)
        step = replica.step(0, 0, 1, 2)
        outcomes += ends(replica, bad, step) if late else ends(replica, step)
        assert outcomes == ["BadValueError", "done"]
        assert ends(replica, replica.launch(B, 1, 1), replica.step(1, 1)) == ["done"] * 2
        found.append((replica.results, weights(replica)))
    assert found[0] == found[1]


def test_a_bad_value_at_a_steps_edge_does_not_reach_the_weights(lives: Lives) -> None:
    """The step counts without it before it is noticed: the sum that it has spoilt is made again."""
    found = []
    for late in (False, True):
        replica = lives.start(bad={(0, 2, B): math.nan})
        assert ends(replica, *[replica.launch(F, 0, index) for index in range(3)]) == ["done"] * 3
        assert ends(replica, *[replica.launch(B, 0, index) for index in range(2)]) == ["done"] * 2
        bad = replica.launch(B, 0, 2)
        outcomes = [] if late else ends(replica, bad)
        step = replica.step(0, 0, 1)
        outcomes += ends(replica, bad, step) if late else ends(replica, step)
        assert outcomes == ["BadValueError", "done"]
        found.append((replica.results, weights(replica)))
    assert found[0] == found[1]


@pytest.mark.parametrize("bad", [(2,), (1, 2)])
def test_a_bad_backward_late_in_a_step_costs_one_summing_again_however_many_there_are(
    lives: Lives, bad: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    backwards: list[int] = []
    backward = Engine.backward

    def counted(engine: Engine, mb: Microbatch, *given: Any) -> DeviceOutput:
        backwards.append(mb.index)
        return backward(engine, mb, *given)

    monkeypatch.setattr(Engine, "backward", counted)
    replica = lives.start(bad={(0, index, B): math.nan for index in bad})
    assert ends(replica, *[replica.launch(F, 0, index) for index in range(3)]) == ["done"] * 3
    outcomes = ends(replica, *[replica.launch(B, 0, index) for index in range(3)])
    assert outcomes == ["BadValueError" if index in bad else "done" for index in range(3)]
    good = [index for index in range(3) if index not in bad]
    assert ends(replica, replica.step(0, *good)) == ["done"]
    assert backwards == [0, 1, 2, *good]


def test_a_step_that_made_bad_weights_loses_the_state_and_nothing_is_recorded_after_it(
    lives: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = lives.start("delayed")
    for step in range(2):
        for kind in (F, B):
            assert ends(replica, replica.launch(kind, step, 0)) == ["done"]
    assert ends(replica, replica.step(0, 0)) == ["done"]
    before = replica.receipts
    with monkeypatch.context() as faulty:
        faulty.setattr("iota.compute.clip._norm", lambda _: torch.tensor(math.nan))
        last = replica.step(1, 0)
    merge = replica.runner.recorder.record(lambda: replica.log.append({}))
    assert ends(replica, last, merge) == ["StateLost"] * 2
    replica.runner.committer.close()
    assert replica.receipts == before
    assert [done.version for done, _ in replica.runner.committer.take()] == [0], "the bad one is not due"


def test_a_disk_that_fills_while_the_next_op_runs_ends_both_and_a_restart_repeats_them(
    lives: Lives, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    replica = lives.start()
    assert ends(replica, replica.launch(F, 0, 0)) == ["done"]
    with monkeypatch.context() as disk:
        disk.setattr("miner.disk.MinerDisk.save_frame", full)
        recorded = [replica.launch(F, 0, 1), replica.launch(F, 0, 2)]
        replica.gate.let()
        with pytest.raises(OSError, match="no space"):
            recorded[0].result(LIMIT_S)
    with pytest.raises(OSError, match="no space"):
        recorded[1].result(LIMIT_S)
    assert [receipt.microbatch for receipt in replica.receipts] == [0], "though there is room again"
    replica = lives.restart()
    assert ends(replica, *[replica.launch(F, 0, index) for index in range(3)]) == ["done"] * 3
    assert [receipt.microbatch for receipt in replica.receipts] == [0, 1, 2]


def test_the_end_of_a_life_records_the_op_in_work_and_discards_those_after_it(lives: Lives) -> None:
    replica = lives.start()
    recorded = [replica.launch(F, 0, index) for index in range(2)]
    while not recorded[0].running():
        threading.Event().wait(0.001)
    closing = threading.Thread(target=replica.runner.close)
    closing.start()
    with pytest.raises(CancelledError):
        recorded[1].result(LIMIT_S)
    replica.gate.let()
    closing.join(LIMIT_S)
    assert recorded[0].result() is not None
    assert [receipt.microbatch for receipt in replica.receipts] == [0]
    replica = lives.restart()
    assert ends(replica, *[replica.launch(F, 0, index) for index in range(2)]) == ["done"] * 2
    assert [receipt.microbatch for receipt in replica.receipts] == [0, 1]


def test_an_op_is_discarded_in_the_engine_before_the_next_one(lives: Lives) -> None:
    replica = lives.start(bad={(0, 0, F): math.nan})
    replica.gate.let()
    with pytest.raises(BadValueError, match="the stage input"):
        replica.launch(F, 0, 0).result(LIMIT_S)
    assert ends(replica, replica.launch(F, 0, 1)) == ["done"]
    assert [mb.index for mb in replica.runner.engine._in_flight] == [1]


def test_inputs_that_are_gone_lose_the_state_at_the_launch(lives: Lives) -> None:
    replica = lives.start()
    replica.inputs[0, 0].gradient = None
    ends(replica, replica.launch(F, 0, 0))
    with pytest.raises(StateLost, match="is gone"):
        replica.launch(B, 0, 0)
