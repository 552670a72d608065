"""`iota-miner`: register a hotkey, and mine with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iota.chain.register_command import add_register
from iota.console.command import run_command, start_logging
from iota.settings.flags import (
    SOURCES,
    ChainEndpoint,
    Device,
    LogLevel,
    Netuid,
    Network,
    Orchestrator,
    Threads,
    WalletHotkey,
    WalletName,
    WalletPath,
)

app = typer.Typer(
    help="Host one pipeline stage of a run, and be paid for checked work.", no_args_is_help=True
)


@app.command(epilog=SOURCES)
def start(
    orchestrator: Orchestrator = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Receipts, frames and snapshots; one per miner.  (env IOTA_DATA_DIR; default: ~/.iota)"
        ),
    ] = None,
    device: Device = None,
    threads: Threads = None,
    recompute: Annotated[
        str | None, typer.Option(help="never, auto or always.  (env IOTA_MINER_RECOMPUTE; default: auto)")
    ] = None,
    snapshot_bytes: Annotated[
        str | None, typer.Option(help="Disk for snapshots.  (env IOTA_MINER_SNAPSHOT_BYTES; default: 4GiB)")
    ] = None,
    wallet_name: WalletName = None,
    wallet_hotkey: WalletHotkey = None,
    wallet_path: WalletPath = None,
    network: Network = None,
    chain_endpoint: ChainEndpoint = None,
    netuid: Netuid = None,
    log_level: LogLevel = None,
) -> None:
    """Join a run and train until it ends. Ctrl-C stops; starting again continues from the data directory."""
    given = dict(locals())
    import asyncio

    from iota.settings import MinerSettings

    settings = MinerSettings.load(**given)
    start_logging(settings.log_level)
    # Importing it takes seconds: what is wrong with the settings is said before.
    from miner.run import mine

    asyncio.run(mine(settings))


add_register(app, "miner")


def main() -> None:
    """Console entry point."""
    run_command(app)


if __name__ == "__main__":
    main()
