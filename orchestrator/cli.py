"""`iota-orchestrator`: plan and record one run."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from iota.console.command import run_command, start_logging
from iota.console.redaction import without_secrets
from iota.settings.flags import (
    SOURCES,
    ChainEndpoint,
    LogLevel,
    Netuid,
    Network,
    WalletHotkey,
    WalletName,
    WalletPath,
)

if TYPE_CHECKING:  # imported where used, so that --help is fast
    from iota.identity.keys import Hotkey
    from iota.settings import OrchestratorSettings
    from iota.spec import RunSpec

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _root() -> None:
    """Plan and record one training run."""


@app.command(epilog=SOURCES)
def start(
    spec: Annotated[
        Path | None,
        typer.Option(
            help="The run's spec, from `iota spec`; needed.  (env IOTA_ORCHESTRATOR_SPEC; default: none)"
        ),
    ] = None,
    journal: Annotated[
        Path | None,
        typer.Option(
            help="The run's journal; needed, and made if not there."
            "  (env IOTA_ORCHESTRATOR_JOURNAL; default: none)"
        ),
    ] = None,
    manifest: Annotated[
        Path | None,
        typer.Option(
            help="Manifest of the data, from `iota data prepare`; needed."
            "  (env IOTA_ORCHESTRATOR_MANIFEST; default: none)"
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="http://HOST:PORT or s3://BUCKET/PREFIX."
            "  (env IOTA_ORCHESTRATOR_STORE; default: http://127.0.0.1:8701)"
        ),
    ] = None,
    store_secret_file: Annotated[
        Path | None,
        typer.Option(
            help="The embedded store's secret.  (env IOTA_ORCHESTRATOR_STORE_SECRET_FILE; default: none)"
        ),
    ] = None,
    store_public_url: Annotated[
        str | None,
        typer.Option(
            help="What nodes reach the store by, if not --store."
            "  (env IOTA_ORCHESTRATOR_STORE_PUBLIC_URL; default: none)"
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on.  (env IOTA_ORCHESTRATOR_HOST; default: 0.0.0.0)"),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(help="Port; 0 for a free one.  (env IOTA_ORCHESTRATOR_PORT; default: 8400)"),
    ] = None,
    allow: Annotated[
        Path | None,
        typer.Option(
            help="Hotkeys that may take part, one a line, in place of the metagraph."
            "  (env IOTA_ORCHESTRATOR_ALLOW; default: none)"
        ),
    ] = None,
    silence: Annotated[
        float | None,
        typer.Option(
            help="Seconds of silence after which a node is lost."
            "  (env IOTA_ORCHESTRATOR_SILENCE; default: 15.0)"
        ),
    ] = None,
    head_poll: Annotated[
        float | None,
        typer.Option(
            help="Seconds between two looks at the newest block."
            "  (env IOTA_ORCHESTRATOR_HEAD_POLL; default: 6.0)"
        ),
    ] = None,
    wallet_name: WalletName = None,
    wallet_hotkey: WalletHotkey = None,
    wallet_path: WalletPath = None,
    network: Network = None,
    chain_endpoint: ChainEndpoint = None,
    netuid: Netuid = None,
    log_level: LogLevel = None,
) -> None:
    """Start the orchestrator of a run, or go on from its journal."""
    given = dict(locals())
    import asyncio

    from iota.identity.keys import load_hotkey
    from iota.settings import OrchestratorSettings
    from iota.settings.spec_file import read_spec

    settings = OrchestratorSettings.load(**given)
    start_logging(settings.log_level)
    run_spec = read_spec(_needed(settings.spec, "--spec"))
    manifest_bytes = _load_manifest(_needed(settings.manifest, "--manifest"), run_spec)
    journal_path = _needed(settings.journal, "--journal")
    hotkey = load_hotkey(settings.wallet_name, settings.wallet_hotkey, settings.wallet_path)
    asyncio.run(_start(settings, run_spec, hotkey, journal_path, manifest_bytes))


def _needed(path: Path | None, flag: str) -> Path:
    if path is None:
        raise ValueError(f"{flag} FILE is needed: see iota-orchestrator start --help")
    return path


async def _start(
    settings: OrchestratorSettings, spec: RunSpec, hotkey: Hotkey, journal_path: Path, manifest: bytes
) -> None:
    from iota.chain import ChainError, open_chain
    from iota.store import open_store
    from orchestrator.coordinator import Coordinator
    from orchestrator.http.app import Deps
    from orchestrator.http.limits import ServerLimits
    from orchestrator.http.membership import AllowList
    from orchestrator.http.metagraph import Metagraph
    from orchestrator.http.run import serve
    from orchestrator.journal import SqliteJournal

    async with AsyncExitStack() as stack:
        journal = SqliteJournal(journal_path, spec, hotkey.ss58)
        stack.callback(journal.close)
        secret = _load_secret(settings.store_secret_file)
        store = open_store(settings.store, secret, public_url=settings.store_public_url)
        stack.push_async_callback(store.close)
        chain = await stack.enter_async_context(open_chain(settings.chain))
        is_member: AllowList | Metagraph
        if settings.allow is None:
            seen = journal_path.with_name(f"{journal_path.name}.metagraph.json")
            is_member = Metagraph(chain, settings.netuid, seen, settings.chain)
            try:
                await is_member.start()
            except (ChainError, TimeoutError) as error:
                place = f"subnet {settings.netuid} on {without_secrets(settings.chain)}"
                raise ValueError(
                    f"{place} cannot be read ({error or 'no answer'}):"
                    " check --network and --netuid, or give --allow FILE"
                ) from error
        else:
            is_member = AllowList.load(settings.allow)
        deps = Deps(
            hotkey=hotkey,
            coordinator=Coordinator(spec),
            journal=journal,
            store=store,
            chain=chain,
            is_member=is_member,
            also=() if isinstance(is_member, AllowList) else (is_member.follow,),
            manifest=manifest,
            limits=ServerLimits(silence_s=settings.silence),
            head_poll_s=settings.head_poll,
        )
        await serve(
            deps,
            settings.host,
            settings.port,
            started=lambda bound: _announce(spec, hotkey, settings.host, bound),
        )


def _announce(spec: RunSpec, hotkey: Hotkey, host: str, port: int) -> None:
    print(f"run {spec.id} orchestrated by {hotkey.ss58} on http://{host}:{port}", flush=True)


def _load_manifest(path: Path, spec: RunSpec) -> bytes:
    import json

    from iota.spec import json_digest

    try:
        data = path.read_bytes()
        found = json_digest(json.loads(data))
    except OSError as error:
        raise ValueError(
            f"the manifest {path} cannot be read ({error.strerror}): make one with `iota data prepare`"
        ) from None
    except ValueError:
        raise ValueError(f"the manifest {path} is not JSON: give what `iota data prepare` wrote") from None
    if found != spec.data.manifest:
        raise ValueError(
            f"{path} is the manifest {found}, and the spec names {spec.data.manifest}: give that one"
        )
    return data


def _load_secret(path: Path | None) -> bytes | None:
    try:
        return None if path is None else path.read_bytes().strip()
    except OSError as error:
        raise ValueError(
            f"the store's secret {path} cannot be read ({error.strerror}): give --store-secret-file FILE"
        ) from None


def main() -> None:
    """Console entry point."""
    run_command(app)


if __name__ == "__main__":
    main()
