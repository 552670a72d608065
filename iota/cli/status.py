"""`iota status`: shows the state of a run, from its orchestrator or, once it has ended, from its journal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iota.settings import NodeSettings
from iota.settings.flags import SOURCES, with_flags

if TYPE_CHECKING:
    from rich.console import Console

    from iota.protocol.status_delta import Status

app = typer.Typer()


@app.command(epilog=SOURCES)
@with_flags(NodeSettings, only=("orchestrator",))
def status(
    run_dir: Annotated[Path | None, typer.Option(help="The folder of a run of `iota up`, instead.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Follow the run until it ends or Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the status as JSON, one a line.")] = False,
    **flags: Any,
) -> None:
    """Show a run's stages and replicas, loss, speed, audits and weights.

    Off a terminal `--live` prints a line each half minute, and at each change of phase.
    """
    from rich.console import Console

    from iota.cli import orchestrator_calls as calls

    url = calls.orchestrator_url(run_dir, flags)
    console = Console()
    try:
        if not live:
            _once(console, calls.status(url), run_dir, as_json=as_json)
        elif as_json:
            for found in calls.statuses(url):
                typer.echo(json.dumps(found))
        else:
            _follow(console, calls.statuses(url), run_dir)
    except calls.NoOrchestrator:
        if run_dir is None:
            raise
        _ended(console, run_dir, as_json=as_json)


def _once(console: Console, status: Status, run_dir: Path | None, *, as_json: bool) -> None:
    import time

    from iota.swarm.progress import Progress
    from iota.swarm.run_dir import member_names
    from iota.swarm.view import Shown, page

    if as_json:
        typer.echo(json.dumps(status))
        return
    progress = Progress(time.monotonic())
    progress.observe(time.monotonic(), status)
    console.print(page(status, Shown(speed=progress.speed, names=member_names(run_dir)), console.width))


def _follow(console: Console, found: Iterator[Status], run_dir: Path | None) -> None:
    import time

    from iota.swarm.display import display_on
    from iota.swarm.progress import Progress
    from iota.swarm.run_dir import member_names

    progress = Progress(time.monotonic())
    with display_on(console, member_names(run_dir)) as display:
        for status in found:
            now = time.monotonic()
            progress.observe(now, status)
            display.show(now, progress)
    console.print("the run has ended", highlight=False)


def _ended(console: Console, run_dir: Path, *, as_json: bool) -> None:
    from iota.swarm.ended import ended_status, how_it_ended, replayed

    status = ended_status(replayed(run_dir), run_dir)
    _once(console, status, run_dir, as_json=as_json)
    if not as_json:
        console.print(how_it_ended(status, run_dir), highlight=False, soft_wrap=True)
