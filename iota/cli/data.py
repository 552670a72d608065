"""`iota data`: tokenized training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import ProgressColumn

    from iota.data import Manifest

app = typer.Typer(help="Tokenized training data.", no_args_is_help=True)


@app.command()
def prepare(
    source: Annotated[
        str,
        typer.Argument(help="stdlib, hf:DATASET[:CONFIG][:SPLIT], or a file or folder of text."),
    ],
    out: Annotated[str, typer.Option("--out", help="Folder, or s3://BUCKET/PREFIX.")],
    tokenizer: Annotated[
        str, typer.Option(help="bytes, a tokenizer's folder, or its name on the Hugging Face Hub.")
    ] = "bytes",
    shard_tokens: Annotated[int, typer.Option(help="Tokens in a shard.", min=2)] = 1 << 25,
    heldout_tokens: Annotated[int, typer.Option(help="Least tokens held out.", min=1)] = 1 << 17,
    max_tokens: Annotated[
        int | None, typer.Option(help="Stop after so many tokens; all if not given.", min=1)
    ] = None,
    work: Annotated[
        Path, typer.Option(help="Where shards are made before they go to S3; needs room for all of them.")
    ] = Path("iota-data"),
) -> None:
    """Tokenize SOURCE into shards with a manifest, and print the manifest's id.

    Interrupted work goes on when the same command is run again.
    """
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    from iota.data import PackProgress, manifest_id, open_source, open_tokenizer
    from iota.data import prepare as prepare_data
    from iota.objects import manifest_folder

    remote = out.startswith("s3://")
    folder = work if remote else Path(out)
    opened, ids = open_source(source), open_tokenizer(tokenizer)
    with _bar(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as bar:
        task = bar.add_task(f"reading {opened.name}")

        def show(at: PackProgress) -> None:
            text = f"{opened.name}: {at.documents:,} documents, {at.tokens:,} tokens, {at.shards} shards"
            bar.update(task, description=text)

        manifest = prepare_data(
            opened, ids, folder, shard_tokens, heldout_tokens, show, max_tokens=max_tokens
        )
    if remote:
        _publish(manifest, folder, out)
    identity = manifest_id(manifest)
    typer.echo(
        f"{manifest.tokens} tokens in {len(manifest.train)} shards, {manifest.heldout.tokens} held out,"
        f" in {out.rstrip('/')}/{manifest_folder(identity)}",
        err=True,
    )
    typer.echo(identity)


def _bar(*columns: ProgressColumn) -> Bar:
    """A progress bar on stderr that disappears at its end; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    return Bar(*columns, console=console, transient=True, disable=not console.is_terminal)


def _publish(manifest: Manifest, folder: Path, url: str) -> None:
    """Upload the prepared shards and their manifest to the store at `url`."""
    import asyncio

    from iota.data import publish
    from iota.store import open_store

    async def upload() -> None:
        store = open_store(url)
        try:
            with _bar() as bar:
                task = bar.add_task("uploading shards")
                await publish(
                    manifest, folder, store, lambda done, total: bar.update(task, completed=done, total=total)
                )
        finally:
            await store.close()

    asyncio.run(upload())
