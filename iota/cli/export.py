"""`iota export`: writes a run's model for `transformers`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from iota.console.counts import counted
from iota.settings import NodeSettings, OrchestratorSettings
from iota.settings.flags import SOURCES, with_flags

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from iota.exporting import Facts, Objects
    from iota.exporting.export import Progress

app = typer.Typer()
RETRY_FOR_S = 30.0
"""How long an orchestrator may be silent."""
URL_S = 3600.0
"""Lifetime of a URL, which is used at once."""


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
    with asyncio.Runner() as runner, _progress() as progress:
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
    from iota.client.orchestrator import OrchestratorClient, OrchestratorUnreachable
    from iota.console.redaction import without_secrets
    from iota.exporting import FolderObjects, OrchestratorFacts, RecordedFacts, UrlObjects
    from iota.http import Reach
    from iota.store import open_store
    from iota.store.secret import load_secret
    from iota.store.transfer import ObjectClient
    from iota.swarm.run_dir import RunDir, no_run

    live, recorded = NodeSettings.given(flags), OrchestratorSettings.given(flags)
    if (run_dir is not None) + bool(live) + bool(recorded) > 1:
        raise ValueError("give one of --orchestrator, --journal with --store, and --run-dir")
    if run_dir is not None:
        run = RunDir(run_dir)
        if not run.journal.exists():
            raise no_run(run_dir)
        return RecordedFacts(**_recorded(run.journal)), FolderObjects(run.store)
    if recorded:
        settings = OrchestratorSettings.load(**recorded)
        if settings.journal is None:
            raise ValueError("--store needs --journal FILE, the journal of the orchestrator")
        secret = settings.store_secret_file
        store = open_store(settings.store, load_secret(secret) if secret else None)
        stack.push_async_callback(store.close)

        async def signed(key: str) -> str:
            return store.presign_get(key, URL_S)

        client = await stack.enter_async_context(ObjectClient())
        return RecordedFacts(**_recorded(settings.journal)), UrlObjects(signed, client)
    node = NodeSettings.load(**live)
    url, reach = node.orchestrator, Reach(anywhere=node.allow_private_urls)
    client = await stack.enter_async_context(ObjectClient(reach))
    typer.echo(f"export: asking {without_secrets(url)}", err=True)
    asked = await stack.enter_async_context(
        OrchestratorClient(None, url, node.orchestrator_hotkey, retry_for_s=RETRY_FOR_S, reach=reach)
    )

    async def asked_for(key: str) -> str:
        return (await asked.public_object(key)).url

    try:
        info = await asked.run()
    except OrchestratorUnreachable as error:
        raise no_orchestrator(url, error) from None
    return OrchestratorFacts(info.spec, asked), UrlObjects(asked_for, client)


def _recorded(journal: Path) -> dict[str, Any]:
    """The arguments of RecordedFacts from a journal."""
    from orchestrator.journal import read_journal

    typer.echo(f"export: reading the journal {journal}", err=True)
    found = read_journal(journal)
    bases = {
        (epoch, stage): base
        for epoch in found.stored_epochs()
        for stage in range(found.spec.layout.stages)
        if (base := found.stored_base(epoch, stage)) is not None
    }
    return {"spec": found.spec, "bases": bases, "status": found.status()}


@contextmanager
def _progress() -> Iterator[Progress]:
    """Shows on stderr what is being done: a bar on a terminal, else a line for each thing and half minute."""
    import time

    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    from iota.console.durations import LINE_EVERY_S

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    said, at = "", 0.0
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("export", total=1.0)

        def show(what: str, share: float) -> None:
            nonlocal said, at
            bar.update(task, description=what, completed=share)
            now = time.monotonic()
            if not console.is_terminal and (what != said or now - at >= LINE_EVERY_S):
                typer.echo(f"export: {what}{f', {share:.0%}' if share else ''}", err=True)
                said, at = what, now

        yield show
