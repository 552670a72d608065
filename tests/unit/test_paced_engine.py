"""The paced engine: real bits, and each op takes its set time by waiting."""

from __future__ import annotations

import pytest

from iota.compute import Microbatch, MicrobatchError
from iota.compute.engine import Engine
from iota.compute.state import StageState
from tests.support.paced_engine import Pace, PacedEngine
from tests.support.small_runs import sample, small_run

SPEC = small_run(layout={"cuts": [2, 2]})
PACE = Pace(forward_s=2.0, loss_s=3.0, backward_s=5.0, step_s=7.0)


class Clock:
    """Time passes by sleeping, every other sleep ending early, and by `compute_s` with each reading."""

    def __init__(self, compute_s: float = 0.25) -> None:
        self.now, self.slept, self._compute_s, self._early = 100.0, 0.0, compute_s, True

    def read(self) -> float:
        self.now += self._compute_s
        return self.now

    def sleep(self, seconds: float) -> None:
        self._early = not self._early
        passed = seconds if self._early else seconds / 2
        self.now += passed
        self.slept += passed


def paced(stage: int, clock: Clock) -> PacedEngine:
    engine = PacedEngine(SPEC, stage, pace=PACE, clock=clock.read, sleep=clock.sleep)
    engine.load(StageState.initial(SPEC, stage), version=0)
    return engine


def plain(stage: int) -> Engine:
    engine = Engine(SPEC, stage)
    engine.load(StageState.initial(SPEC, stage), version=0)
    return engine


def one_step(first: Engine, last: Engine) -> list[object]:
    """All four kinds of op."""
    mb, tokens = Microbatch(0, 0, 0), sample(SPEC)(0, 0, 0)
    sent = first.forward(mb, 0, None, tokens)
    loss = last.loss(mb, 0, sent.payload, tokens)
    assert loss.payload is not None
    back = first.backward(mb, 0, loss.payload)
    ends = [engine.step(0, 1, 0.01) for engine in (first, last)]
    return [made.read().result() for made in (sent, loss, back, *ends)]


def test_a_paced_engine_gives_the_bits_of_a_plain_one() -> None:
    assert one_step(paced(0, Clock()), paced(1, Clock())) == one_step(plain(0), plain(1))


def test_each_op_takes_its_time() -> None:
    first, last = Clock(), Clock()
    one_step(paced(0, first), paced(1, last))
    assert first.now - 100.0 >= 2.0 + 5.0 + 7.0
    assert last.now - 100.0 >= 3.0 + 7.0


def test_an_op_that_computes_longer_than_its_time_does_not_wait() -> None:
    clock = Clock(compute_s=10.0)
    one_step(paced(0, clock), plain(1))
    assert clock.slept == 0


def test_an_op_that_fails_takes_its_time_too() -> None:
    clock = Clock()
    engine = paced(1, clock)
    with pytest.raises(MicrobatchError):
        engine.forward(Microbatch(0, 0, 0), 0, None, sample(SPEC)(0, 0, 0))
    assert clock.now - 100.0 >= 2.0


def test_a_pace_can_be_slowed() -> None:
    assert PACE.times(2) == Pace(forward_s=4.0, loss_s=6.0, backward_s=10.0, step_s=14.0)
