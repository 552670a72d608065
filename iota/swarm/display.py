"""Shows the progress of a run: a live page on a terminal, plain lines elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Self

from rich.console import Console
from rich.live import Live

from iota.console.durations import LINE_EVERY_S
from iota.swarm.progress import Progress
from iota.swarm.view import Shown, line, page

PAGE_EVERY_S = 6.0
"""Time that a page of members stays, where they do not fit on the screen."""


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
    """Prints a plain line each `LINE_EVERY_S`; a new phase, reason to wait and the first loss at once."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: tuple[object, ...] = ()
        self._at = float("-inf")

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def show(self, now: float, progress: Progress) -> None:
        status = progress.latest
        assert status is not None
        waiting = status["waiting"] or ""
        # A countdown in the reason is no new reason.
        state = (status["phase"], waiting.partition(", for ")[0], bool(status["losses"]))
        if state == self._shown and now < self._at + LINE_EVERY_S:
            return
        self._shown, self._at = state, now
        self.say(line(status, progress.speed, progress.eta_s))


class Dashboard(Display):
    """Redraws one page in place, for terminals. That of an ended run stays."""

    def __init__(
        self, console: Console, names: Mapping[str, str] | None = None, boundary: str | None = None
    ) -> None:
        """`names` gives a name to hotkeys; `boundary` describes a boundary's traffic."""
        self._console, self._names, self._boundary = console, names or {}, boundary
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def show(self, now: float, progress: Progress) -> None:
        assert progress.latest is not None
        self._live.transient = not progress.latest["finished"]
        shown = Shown(
            speed=progress.speed,
            eta_s=progress.eta_s,
            names=self._names,
            boundary=self._boundary,
            page=int(now / PAGE_EVERY_S),
        )
        width, height = self._console.size
        # The last line stays free: a terminal scrolls when it is written to its end.
        self._live.update(page(progress.latest, shown, width, height - 1), refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


def draws_pages(console: Console) -> bool:
    """Whether a page can be redrawn in place: on a terminal that moves its cursor and has the characters."""
    return console.is_terminal and not console.is_dumb_terminal and console.encoding.startswith("utf")


def display_on(console: Console, names: Mapping[str, str], boundary: str | None = None) -> Display:
    """The display for a console."""
    return Dashboard(console, names, boundary) if draws_pages(console) else Lines(console)
