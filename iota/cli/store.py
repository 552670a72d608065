"""`iota store`: the embedded object store's own process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iota.settings.flags import SOURCES

app = typer.Typer(help="The embedded object store.", no_args_is_help=True)


@app.callback()
def store() -> None:
    """The embedded object store."""


@app.command(epilog=SOURCES)
def serve(
    root: Annotated[
        Path | None,
        typer.Option(help="Folder that holds the objects; needed.  (env IOTA_STORE_ROOT; default: none)"),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on.  (env IOTA_STORE_HOST; default: 127.0.0.1)")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="Port; 0 picks a free one.  (env IOTA_STORE_PORT; default: 8701)", min=0, max=65535
        ),
    ] = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            help="File with the secret that signs URLs; needed, and made if it is not there."
            "  (env IOTA_STORE_SECRET_FILE; default: none)"
        ),
    ] = None,
) -> None:
    """Serve a folder by presigned URLs until interrupted.

    Whoever has the secret (the orchestrator) hands out URLs for one object, one operation, one size
    and a short time; nobody else can read or write anything.
    """
    import asyncio
    import signal

    from iota.settings import StoreSettings
    from iota.store.embedded_server import running
    from iota.store.secret import load_or_create_secret

    settings = StoreSettings.load(root=root, host=host, port=port, secret_file=secret_file)
    if settings.root is None or settings.secret_file is None:
        raise ValueError("give the store's folder and its secret's file: --root DIR --secret-file FILE")
    folder, secret = settings.root, load_or_create_secret(settings.secret_file)

    async def until_stopped() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with running(folder, secret, settings.host, settings.port) as url:
            typer.echo(f"object store at {url}, objects in {folder}")
            await stop.wait()

    asyncio.run(until_stopped())
