"""`iota-miner`: register a hotkey, and mine with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iota.flags import (
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
from iota.terminal import run_command

app = typer.Typer(
    help="Host one pipeline stage of a run, and be paid for checked work.", no_args_is_help=True
)


@app.command()
def start(
    orchestrator: Orchestrator = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Receipts, frames and snapshots; one per miner.  (env IOTA_DATA_DIR)")
    ] = None,
    device: Device = None,
    threads: Threads = None,
    recompute: Annotated[
        str | None, typer.Option(help="never, auto or always.  (env IOTA_MINER_RECOMPUTE)")
    ] = None,
    snapshot_bytes: Annotated[
        str | None, typer.Option(help="Disk for snapshots, as 4GiB.  (env IOTA_MINER_SNAPSHOT_BYTES)")
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
    import logging

    from iota.settings import MinerSettings
    from miner.run import mine

    settings = MinerSettings.load(**given)
    logging.basicConfig(
        level=settings.log_level.value, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    asyncio.run(mine(settings))


@app.command("register")
def register_hotkey(
    wallet_name: WalletName = None,
    wallet_hotkey: WalletHotkey = None,
    wallet_path: WalletPath = None,
    network: Network = None,
    chain_endpoint: ChainEndpoint = None,
    netuid: Netuid = None,
) -> None:
    """Register the hotkey as a miner on the subnet; does nothing if it is registered already."""
    given = dict(locals())
    import asyncio

    from iota.chain.registration import register
    from iota.protocol.messages import Role
    from iota.settings import ChainSettings

    settings = ChainSettings.load(**given)
    typer.echo(asyncio.run(register(settings, Role.MINER)))


def main() -> None:
    """Console entry point."""
    run_command(app)


if __name__ == "__main__":
    main()
