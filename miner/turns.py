"""One thing at a time: whoever has the least turn is next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """A lock whose waiters come in the order of what `turn` says of them when it becomes free."""

    def __init__(self, turn: Callable[[T], tuple[int, float]]) -> None:
        self._turn = turn
        self._waiting: list[tuple[T, asyncio.Future[None]]] = []
        self._taken = False

    @asynccontextmanager
    async def turn(self, of: T) -> AsyncIterator[None]:
        """Wait for the turn `of` something, and hold it."""
        if self._taken:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((of, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.cancelled():
                    self._waiting.remove((of, turn))
                else:
                    self._pass_on()
                raise
        self._taken = True
        try:
            yield
        finally:
            self._pass_on()

    def _pass_on(self) -> None:
        """Give the turn to the waiter with the least turn."""
        self._taken = bool(self._waiting)
        if self._waiting:
            first = min(range(len(self._waiting)), key=lambda n: self._turn(self._waiting[n][0]))
            self._waiting.pop(first)[1].set_result(None)
