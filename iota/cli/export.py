"""`iota export`: writes a run's model for `transformers`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iota.cli.progress_bar import progress_bar
from iota.console.counts import counted
from iota.settings import NodeSettings, OrchestratorSettings
from iota.settings.flags import SOURCES, with_flags

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from iota.exporting import Facts, Objects

app = typer.Typer()


@app.command(epilog=SOURCES)
@with_flags(NodeSettings, only=("orchestrator", "orchestrator_hotkey", "allow_private_urls"))
@with_flags(OrchestratorSettings, only=("journal", "store", "store_secret_file"))
def export(
    to: Annotated[Path, typer.Option(help="Where to write the model: a new or empty folder.")],
    run_dir: Annotated[Path | None, typer.Option(help="The folder of a run of `iota up`.")] = None,
    epoch: Annotated[
        int | None,
        typer.Option(
            help="Merged epochs of the weights; 0 is the initial weights. (default: the newest)", min=0
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="The run's tokenizer, where the store does not have it: a folder or name."),
    ] = None,
    license_name: Annotated[
        str | None, typer.Option("--license", help="License of the weights, for the model card.")
    ] = None,
    heldout_tokens: Annotated[
        int,
        typer.Option(
            help="Measure the held-out loss on at most so many tokens, on the CPU; 0 takes the run's own.",
            min=0,
        ),
    ] = 0,
    **flags: Any,
) -> None:
    """Write a run's merged weights as a `transformers` model: weights, config, tokenizer, model card, code.

    They come from the orchestrator at --orchestrator, also while the run goes on; from --journal and --store,
    also with the orchestrator stopped; or from --run-dir. All of it is verified by digest. Interrupted
    downloads go on when the same command is run again.
    """
    import asyncio
    from contextlib import AsyncExitStack

    from iota.exporting import Exporter, Target

    target = Target(to, epoch, tokenizer, license_name, heldout_tokens)
    with asyncio.Runner() as runner, progress_bar("export") as progress:
        stack = AsyncExitStack()
        try:
            facts, objects = runner.run(_source(run_dir, flags, stack))
            found = Exporter(facts, objects, target, runner, progress).run()
        finally:
            runner.run(stack.aclose())
    typer.echo(f"the weights after {counted(found, 'epoch')} are in {to}")


async def _source(
    run_dir: Path | None, flags: dict[str, Any], stack: AsyncExitStack
) -> tuple[Facts, Objects]:
    """What the flags name. `stack` closes its connections."""
    from iota.cli.orchestrator_calls import no_orchestrator
    from iota.client.orchestrator import OrchestratorUnreachable
    from iota.swarm.run_sources import from_folder, from_journal, from_orchestrator

    def say(line: str) -> None:
        typer.echo(f"export: {line}", err=True)

    live, recorded = NodeSettings.given(flags), OrchestratorSettings.given(flags)
    if (run_dir is not None) + bool(live) + bool(recorded) > 1:
        raise ValueError("give one of --orchestrator, --journal with --store, and --run-dir")
    if run_dir is not None:
        return await from_folder(run_dir, say)
    if recorded:
        return await from_journal(OrchestratorSettings.load(**recorded), stack, say)
    node = NodeSettings.load(**live)
    try:
        return await from_orchestrator(node, stack, say)
    except OrchestratorUnreachable as error:
        raise no_orchestrator(node.orchestrator, error) from None
