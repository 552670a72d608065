"""`iota run rollback`: a new run from an older base of a run that went wrong."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from iota.settings import OrchestratorSettings
from iota.settings.flags import SOURCES, with_flags

app = typer.Typer(help="What is done about a run as a whole.", no_args_is_help=True)


@app.command(epilog=SOURCES)
@with_flags(OrchestratorSettings, only=("journal", "store", "store_secret_file"))
def rollback(
    epoch: Annotated[int, typer.Option(help="Merged epochs of the base to go on from.", min=0)],
    out: Annotated[Path, typer.Option(help="The new run's spec, a file that is not there yet.")],
    skip_data: Annotated[
        bool,
        typer.Option("--skip-data", help="Leave out the samples that the run has read since that base."),
    ] = False,
    **flags: Any,
) -> None:
    """Make a run that does the epochs from --epoch on anew: its spec, and its weights in the same --store.

    All values are the old run's. Its journal, record and objects stay as they are. Stop its orchestrator, and
    start one with the new spec and a new journal. A command that was interrupted is repeated.
    """
    from iota.cli.progress_bar import progress_bar
    from iota.spec.continuation import rolled_back
    from iota.swarm.earlier_run import earlier_run
    from iota.swarm.run_sources import from_journal, opened_store
    from iota.swarm.starting import start_from

    if out.exists():
        raise ValueError(f"{out} is there already: remove it, or give another --out")
    settings = OrchestratorSettings.load(**OrchestratorSettings.given(flags))
    if settings.journal is None:
        raise ValueError("--journal FILE is needed: the journal of the run that went wrong")
    folder = out.with_name(f".{out.name}.download")

    def say(line: str) -> None:
        typer.echo(f"rollback: {line}", err=True)

    with (
        earlier_run(lambda stack: from_journal(settings, stack, say), epoch) as earlier,
        progress_bar("rollback") as progress,
    ):
        spec = rolled_back(earlier.spec, earlier.epoch, skip_to=earlier.epochs_begun() if skip_data else None)
        weights = earlier.weights(folder, progress)
        made = start_from(spec, weights, lambda: opened_store(settings), say)
    with out.open("x") as file:
        file.write(made.model_dump_json(indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    typer.echo(
        f"run {made.id}: from the base of epoch {epoch} of run {earlier.spec.id}, in {out}\n"
        f"stop the old run's orchestrator, and start one with --spec {out} and a new --journal"
    )
