"""`iota store`: the embedded object store as a process of its own, and a check of any store."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from iota.console.settings_command import settings_command
from iota.settings import OrchestratorSettings, StoreSettings
from iota.settings.flags import SOURCES, with_flags

app = typer.Typer(help="The embedded object store, and whether a store can be used.", no_args_is_help=True)
_COLOURS = {"works": typer.colors.GREEN, "missing": typer.colors.YELLOW, "fatal": typer.colors.RED}


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


@app.command(epilog=SOURCES)
@with_flags(OrchestratorSettings, only=("store_secret_file", "store_public_url"))
def check(
    url: Annotated[str, typer.Argument(metavar="URL", help="As --store of the orchestrator.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    **flags: Any,
) -> None:
    """Try all that a run needs of an object store: a line each, with what follows from what is missing.

    Works in a folder of its own below the store's prefix, and empties it. Ends with code 0 if a run can work
    with the store, and 1 if not.
    """
    import asyncio
    import json
    from dataclasses import asdict

    from iota.settings.urls import store_url
    from iota.store import open_store
    from iota.store.checks import Check, State, usable
    from iota.store.secret import load_secret
    from iota.store.store import StoreError

    settings = OrchestratorSettings.load(**flags)
    file = settings.store_secret_file
    store = open_store(
        store_url(url), load_secret(file) if file else None, public_url=settings.store_public_url
    )

    if not as_json:
        typer.echo(f"checking {url}; a service that does not answer is given a minute", err=True)

    def say(found: Check) -> None:
        if not as_json:
            state = typer.style(f"{found.state:8}", fg=_COLOURS[found.state])
            typer.echo(state + str(found)[8:])

    async def checked() -> tuple[Check, ...]:
        try:
            return await store.check(say)
        except StoreError as error:
            unreachable = Check("reach", State.FATAL, str(error), "nothing else could be tried")
            say(unreachable)
            return (unreachable,)
        finally:
            await store.close()

    checks = asyncio.run(checked())
    well = usable(checks)
    if as_json:
        typer.echo(json.dumps({"ok": well, "checks": [asdict(found) for found in checks]}, indent=2))
    else:
        typer.echo(f"a run can{'' if well else 'not'} work with this store")
    raise typer.Exit(0 if well else 1)
