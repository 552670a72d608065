"""`iota-miner`: register a hotkey, and mine with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iota.flags import (
    SOURCES,
    ChainEndpoint,
    Device,
    LogLevel,
    MaxBurn,
    Netuid,
    Network,
    Orchestrator,
    Threads,
    WalletHotkey,
    WalletName,
    WalletPath,
    Yes,
)
from iota.terminal import run_command

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
    import logging

    from iota.settings import MinerSettings

    settings = MinerSettings.load(**given)
    logging.basicConfig(
        level=settings.log_level.value, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    # Importing it takes seconds: what is wrong with the settings is said before.
    from miner.run import mine

    asyncio.run(mine(settings))


@app.command("register", epilog=SOURCES)
def register_hotkey(
    max_burn: MaxBurn = None,
    yes: Yes = False,
    wallet_name: WalletName = None,
    wallet_hotkey: WalletHotkey = None,
    wallet_path: WalletPath = None,
    network: Network = None,
    chain_endpoint: ChainEndpoint = None,
    netuid: Netuid = None,
    log_level: LogLevel = None,
) -> None:
    """Register the hotkey as a miner on the subnet; does nothing if it is registered already.

    The price is shown first and must be agreed to. The coldkey pays and signs: this is the only command that
    opens it, and the hotkey's node needs no copy of it.
    """
    given = {name: value for name, value in locals().items() if name not in ("max_burn", "yes")}
    import asyncio
    import logging

    from iota.asking import Person
    from iota.chain.registration import register
    from iota.protocol.messages import Role
    from iota.settings import WalletSettings

    settings = WalletSettings.load(**given)
    logging.basicConfig(
        level=settings.log_level.value, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    person = Person(settings, yes=yes)
    typer.echo(asyncio.run(register(settings, Role.MINER, person, max_cost_tao=max_burn)))


def main() -> None:
    """Console entry point."""
    run_command(app)


if __name__ == "__main__":
    main()
