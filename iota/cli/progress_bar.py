"""Shows on stderr how far a command is: a bar on a terminal, else a line for each thing and half minute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer


@contextmanager
def progress_bar(command: str) -> Iterator[Callable[[str, float], None]]:
    """Yields a function that takes what is being done, and the share of it that is done."""
    import time

    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    from iota.console.durations import LINE_EVERY_S

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    said, at = "", 0.0
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(command, total=1.0)

        def show(what: str, share: float) -> None:
            nonlocal said, at
            bar.update(task, description=what, completed=share)
            now = time.monotonic()
            if not console.is_terminal and (what != said or now - at >= LINE_EVERY_S):
                typer.echo(f"{command}: {what}{f', {share:.0%}' if share else ''}", err=True)
                said, at = what, now

        yield show
