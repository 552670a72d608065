"""Miners whose ops take a set time: `main` at the usual pace, `half_speed` twice as long."""

from __future__ import annotations

import functools

from tests.support.miner_program import run_miner
from tests.support.paced_engine import Pace, PacedEngine

PACE = Pace(forward_s=0.05, loss_s=0.15, backward_s=0.1, step_s=0.05)
"""Above what a tiny stage computes on a shared core, so that waiting and not computing sets the speed."""


def main() -> None:
    _start(PACE)


def half_speed() -> None:
    _start(PACE.times(2))


def _start(pace: Pace) -> None:
    run_miner(make_engine=functools.partial(PacedEngine, pace=pace))
