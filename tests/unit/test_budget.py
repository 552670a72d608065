"""The compute cap: arithmetic on clocks that the test sets, and pauses that end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from validator.audits.budget import Budget, Worker


@dataclass
class Clocks:
    wall_s: float = 0.0
    cpu_s: float = 0.0

    def budget(self, share: float, cores: int = 2, already_s: float = 0.0) -> Budget:
        return Budget(
            share, cores=cores, already_s=already_s, wall=lambda: self.wall_s, cpu=lambda: self.cpu_s
        )


def test_the_share_is_cpu_seconds_over_wall_times_cores() -> None:
    clocks = Clocks()
    budget = clocks.budget(0.1)
    clocks.wall_s, clocks.cpu_s = 100, 30
    assert budget.share == pytest.approx(0.15)


def test_above_the_cap_time_is_owed_and_below_it_none() -> None:
    clocks = Clocks()
    budget = clocks.budget(0.1)
    clocks.wall_s, clocks.cpu_s = 100, 30
    assert budget.owed_s == pytest.approx(50)
    clocks.wall_s = 150
    assert budget.owed_s == 0


def test_the_time_before_the_budget_was_made_counts_too() -> None:
    clocks = Clocks(wall_s=5, cpu_s=4)
    assert clocks.budget(0.1, already_s=20).owed_s == 0
    assert clocks.budget(0.1, already_s=5).owed_s == pytest.approx(15)


@pytest.mark.parametrize("share", [0, -0.1, 1.1])
def test_a_share_that_makes_no_sense_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="at most 1"):
        Budget(share)


async def test_a_unit_waits_until_the_cap_lets_it_through() -> None:
    clocks = Clocks(cpu_s=1)
    worker = Worker(clocks.budget(0.5, cores=1))
    unit = asyncio.create_task(worker.run(lambda: "done"))
    await asyncio.sleep(0)
    assert not unit.done()
    clocks.wall_s = 2
    assert await asyncio.wait_for(unit, 10) == "done"
    worker.close()


async def test_a_deadline_ends_a_pause() -> None:
    worker = Worker(Clocks(cpu_s=1e9).budget(0.5))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(worker.run(lambda: "never"), 0.05)
    worker.close()
