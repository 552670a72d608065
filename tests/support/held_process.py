"""A process of a swarm that is held at points of a merge: `held(program, folder)` makes its command line.

The parts of the product that a point stands for are replaced here, before the product's own command runs.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, Final

from iota.swarm.child import run_entry
from iota.swarm.processes import Program
from tests.support.merge_points import Board, Hit, Point

RECOVERED: Final = "the end of a recovery"


def held(program: Program, folder: Path) -> Program:
    """`program`, held where the `Board` in `folder` says."""
    arguments = (str(folder), program.name, program.entry, *program.arguments)
    return dataclasses.replace(program, entry="tests.support.held_process:main", arguments=arguments)


def main() -> None:
    folder, name, entry, *arguments = sys.argv[1:]
    post = Post(Board(Path(folder)), name)
    if name == "store":
        from tests.support.held_store import install
    elif name == "orchestrator":
        from tests.support.held_orchestrator import install
    elif name.startswith("miner"):
        from tests.support.held_miner import install
    else:
        install = _nothing
    install(post)
    run_entry(entry, arguments)


class Post:
    """Where one process is held."""

    def __init__(self, board: Board, name: str) -> None:
        self._board, self._name = board, name
        self._kills, self.steps = board.read()
        """`steps`: those of an epoch."""

    def reach(self, point: Point, epoch: int, about: str = "") -> None:
        """Wait here, if the merge of this epoch has a kill at this point."""
        if not 0 <= epoch < len(self._kills):
            return
        wanted, again = self._kills[epoch]
        if point != wanted:
            return
        killed = self._board.killed(epoch)
        if killed is None:
            self._board.hold(Hit(epoch, 0, point, self._name, about))
        elif again:
            self._board.hold(Hit(epoch, 2, point, self._name, about))

    def recovered(self) -> None:
        """Wait here, if this process was killed for the first time in an epoch with `Kill.again`."""
        for epoch, (_, again) in enumerate(self._kills):
            if again and self._board.killed(epoch) == self._name:
                self._board.hold(Hit(epoch, 1, RECOVERED, self._name, ""))


def after(owner: Any, name: str, then: Callable[..., None]) -> None:
    """Have `owner.name` call `then` with its result and its arguments once it has returned."""
    original = getattr(owner, name)

    @wraps(original)
    def replaced(*given: Any, **more: Any) -> Any:
        result = original(*given, **more)
        then(result, *given, **more)
        return result

    setattr(owner, name, replaced)


def after_awaiting(owner: Any, name: str, then: Callable[..., None]) -> None:
    """As `after`, of a coroutine function."""
    original = getattr(owner, name)

    @wraps(original)
    async def replaced(*given: Any, **more: Any) -> Any:
        result = await original(*given, **more)
        then(result, *given, **more)
        return result

    setattr(owner, name, replaced)


def before_awaiting(owner: Any, name: str, first: Callable[..., None]) -> None:
    """Have a coroutine function call `first` with its arguments before it begins."""
    original = getattr(owner, name)

    @wraps(original)
    async def replaced(*given: Any, **more: Any) -> Any:
        first(*given, **more)
        return await original(*given, **more)

    setattr(owner, name, replaced)


def _nothing(post: Post) -> None:
    pass
