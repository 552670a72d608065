"""`iota data`: tokenized training data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iota.cli.data_report import Pace, description, source_line, summary
from iota.console.command import start_logging
from iota.console.counts import counted

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn

    from iota.data import Manifest, PackProgress

app = typer.Typer(help="Tokenized training data.", no_args_is_help=True)


@app.command()
def prepare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="stdlib, hf:DATASET[@REVISION][:CONFIG][:SPLIT], or a file or folder of text; several as"
            " SOURCE=WEIGHT.",
        ),
    ],
    out: Annotated[str, typer.Option("--out", help="Folder, or s3://BUCKET/PREFIX.")],
    tokenizer: Annotated[
        str, typer.Option(help="bytes, a tokenizer's folder, or its name on the Hugging Face Hub.")
    ] = "bytes",
    text_field: Annotated[
        str, typer.Option(help="Field or column that holds the text; a dotted path leads into structs.")
    ] = "text",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out and count rows that are broken or hold no text.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse rows without text, and files that cannot be read.")
    ] = False,
    encoding: Annotated[str, typer.Option(help="Encoding of text, JSON and CSV.")] = "utf-8",
    shard_tokens: Annotated[int, typer.Option(help="Tokens in a shard.", min=2)] = 1 << 25,
    heldout_tokens: Annotated[
        int | None,
        typer.Option(help="Tokens held out; if not given, a twentieth, and a million at most.", min=1),
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Stop after so many tokens; all if not given.", min=1)
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that tokenize; one for `bytes`, else as many as cores.", min=1, max=256),
    ] = None,
    work: Annotated[
        Path, typer.Option(help="Where shards are made before they go to S3; needs room for all of them.")
    ] = Path("iota-data"),
) -> None:
    """Tokenize sources into shards with a manifest, and print the manifest's id.

    Interrupted work goes on when the same command is run again.
    """
    from iota.data import Job, RowRules, Target, manifest_id, open_sources, open_tokenizer
    from iota.data import prepare as prepare_data
    from iota.objects import manifest_folder
    from iota.planning import usable_cores

    remote = out.startswith("s3://")
    folder = work if remote else Path(out)
    rules = RowRules(field=text_field, skip_bad=skip_bad, strict=strict, encoding=encoding)
    opened = open_sources(sources, rules)
    for weighted in opened:
        if weighted.source.left_out:
            typer.echo(f"{weighted.source.name}: {weighted.source.left_out}", err=True)
    heldout = Target() if heldout_tokens is None else Target.exactly(heldout_tokens)
    job = Job(opened, open_tokenizer(tokenizer), shard_tokens, heldout, max_tokens)
    if workers is None:
        workers = 1 if tokenizer == "bytes" else usable_cores()
    with _progress(job.name) as show:
        manifest = prepare_data(job, folder, show, workers=workers)
    if remote:
        _publish(manifest, folder, out)
    identity = manifest_id(manifest)
    if len(manifest.sources) > 1:
        for info in manifest.sources:
            typer.echo(source_line(info), err=True)
    typer.echo(f"{summary(manifest)}, in {out.rstrip('/')}/{manifest_folder(identity)}", err=True)
    typer.echo(identity)


@app.command()
def show(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder that `iota data prepare --out` wrote to.")
    ],
) -> None:
    """Show the data sets in a folder: tokens, sources, fingerprints, and what was skipped."""
    from iota.data import prepared_ids, read_manifest

    for identity in prepared_ids(folder):
        for line in description(read_manifest(folder, identity), identity):
            typer.echo(line)


@contextmanager
def _progress(name: str) -> Iterator[Callable[[PackProgress], None]]:
    """Shows progress on stderr: in place on a terminal, else with a line every half minute."""
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    pace = Pace(time.monotonic)
    with _bar(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as bar:
        task = bar.add_task(f"reading {name}")

        def show(at: PackProgress) -> None:
            text = f"{name}: {pace.line(at)}"
            bar.update(task, description=text)
            if bar.disable and pace.due():
                typer.echo(text, err=True)

        yield show


def _bar(*columns: ProgressColumn) -> Bar:
    """A progress bar on stderr that disappears at its end; nothing where stderr cannot show it."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    shown = console.is_terminal and not console.is_dumb_terminal
    return Bar(*columns, console=console, transient=True, disable=not shown)


def _publish(manifest: Manifest, folder: Path, url: str) -> None:
    """Upload the prepared shards and their manifest to the store at `url`, and outlast its absence."""
    import asyncio

    from iota.data import publish
    from iota.store import open_store

    pace = Pace(time.monotonic)
    start_logging("WARNING")  # what the upload waits for

    async def upload() -> None:
        store = open_store(url)
        try:
            with _bar() as bar:
                task = bar.add_task("uploading shards")

                def show(done: int, total: int) -> None:
                    bar.update(task, completed=done, total=total)
                    if bar.disable and pace.due():
                        typer.echo(f"uploaded {done} of {counted(total, 'shard')}", err=True)

                await publish(manifest, folder, store, show)
        finally:
            await store.close()

    asyncio.run(upload())
