"""Shows the progress of `iota up`: a live page on a terminal, plain lines elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from rich.console import Console
from rich.live import Live

from iota.spec import RunSpec
from iota.swarm.progress import Progress
from iota.swarm.summary import boundary_bytes_per_token, compression_ratio
from iota.swarm.view import line, page

LINE_EVERY_S = 5.0
"""Longest pause between two lines while the state does not change."""


class Display(ABC):
    """Shows a run's progress, from entering its context to leaving it."""

    @abstractmethod
    def say(self, text: str) -> None:
        """Print a line that stays on the screen."""

    @abstractmethod
    def show(self, now: float, progress: Progress) -> None:
        """Show the newest status; `now` is monotonic seconds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:  # noqa: B027 - most displays have nothing to end
        pass


class Lines(Display):
    """Prints a line when a step closes, the phase changes, or `LINE_EVERY_S` have passed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: tuple[object, ...] = ()
        self._at = float("-inf")

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def show(self, now: float, progress: Progress) -> None:
        status = progress.latest
        assert status is not None
        state = (len(status["losses"]), status["phase"], status["waiting"])
        if state == self._shown and now < self._at + LINE_EVERY_S:
            return
        self._shown, self._at = state, now
        self.say(line(status, progress.recent_tokens_per_second))


class Dashboard(Display):
    """Redraws one page in place, for terminals."""

    def __init__(self, console: Console, spec: RunSpec) -> None:
        self._console = console
        self._boundary = (
            f"{boundary_bytes_per_token(spec):g} bytes a token, {compression_ratio(spec):g}x less than bf16"
        )
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def show(self, now: float, progress: Progress) -> None:
        assert progress.latest is not None
        speed = progress.recent_tokens_per_second
        self._live.update(page(progress.latest, speed, self._console.width, self._boundary), refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
