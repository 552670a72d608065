"""Evidence is stored one object after another, and what has the least turn is next."""

from __future__ import annotations

import asyncio

from miner.turns import Turns


class Bench:
    """Tasks that each note their name while they hold the turn, until they are let go."""

    def __init__(self) -> None:
        self.due: dict[str, tuple[int, float]] = {}
        self.held: list[str] = []
        self._turns = Turns(self.due.__getitem__)
        self._go = asyncio.Event()

    def begin(self, name: str, due: float) -> asyncio.Task[None]:
        self.due[name] = 1, due
        return asyncio.create_task(self._hold(name))

    async def _hold(self, name: str) -> None:
        async with self._turns.turn(name):
            self.held.append(name)
            await self._go.wait()

    async def let_all_go(self, *tasks: asyncio.Task[None]) -> list[str]:
        self._go.set()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        return self.held


async def test_the_first_has_its_turn_at_once_and_then_whoever_is_due_first() -> None:
    bench = Bench()
    tasks = []
    for name, due in (("a", 9.0), ("b", 5.0), ("c", 3.0), ("d", 4.0)):
        tasks.append(bench.begin(name, due))
        await asyncio.sleep(0)
    assert bench.held == ["a"]
    bench.due["b"] = 0, 9.0  # asked for again, by somebody who asks for less
    assert await bench.let_all_go(*tasks) == ["a", "b", "c", "d"]


async def test_who_is_cancelled_holds_up_nobody_while_it_waits_or_has_its_turn() -> None:
    bench = Bench()
    tasks = []
    for name, due in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
        tasks.append(bench.begin(name, due))
        await asyncio.sleep(0)
    tasks[1].cancel()
    await asyncio.sleep(0)
    tasks[0].cancel()
    assert await bench.let_all_go(*tasks) == ["a", "c"]


async def test_who_is_cancelled_just_as_its_turn_comes_passes_it_on() -> None:
    bench = Bench()
    first, second = bench.begin("a", 1.0), bench.begin("b", 2.0)
    await asyncio.sleep(0)
    third = bench.begin("c", 3.0)
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)  # the turn is b's, which has not run yet
    second.cancel()
    assert await bench.let_all_go(first, second, third) == ["a", "c"]
