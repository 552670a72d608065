"""`iota store`: the embedded object store, as a process of its own."""

from __future__ import annotations

import typer

from iota.console.settings_command import settings_command
from iota.settings import StoreSettings

app = typer.Typer(help="The embedded object store.", no_args_is_help=True)


@settings_command(app, StoreSettings)
def serve(settings: StoreSettings) -> None:
    """Serve a folder by presigned URLs until interrupted.

    The holder of the secret (the orchestrator) signs URLs for one object, one operation, one size and a short
    time. Without such a URL nothing can be read or written.
    """
    import asyncio

    from iota.console.signals import call_on_stop
    from iota.console.watch import Watch
    from iota.store.embedded_server import running
    from iota.store.secret import load_or_create_secret

    if settings.root is None or settings.secret_file is None:
        raise ValueError("give the store's folder and its secret's file: --root DIR --secret-file FILE")
    folder, file = settings.root, settings.secret_file

    watch = Watch("the object store's folder")

    async def until_stopped() -> None:
        secret = load_or_create_secret(file)
        stop = asyncio.Event()
        call_on_stop(stop.set)
        async with running(folder, secret, settings.host, settings.port) as url:
            watch.passed()
            typer.echo(f"object store at {url}, objects in {folder}")
            await stop.wait()

    asyncio.run(watch.persevere(until_stopped))
