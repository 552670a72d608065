"""`iota-miner`: register a hotkey, and mine with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iota.terminal import run_command

app = typer.Typer(
    help="Host one pipeline stage of a run, and be paid for checked work.", no_args_is_help=True
)

WalletName = Annotated[
    str | None,
    typer.Option("--wallet.name", "--wallet-name", help="Wallet with the hotkey.  [env: BT_WALLET]"),
]
WalletHotkey = Annotated[
    str | None,
    typer.Option("--wallet.hotkey", "--wallet-hotkey", help="Name of the hotkey.  [env: BT_WALLET_HOTKEY]"),
]
WalletPath = Annotated[
    Path | None,
    typer.Option("--wallet.path", "--wallet-path", help="Folder of wallets.  [env: BT_WALLET_PATH]"),
]
Network = Annotated[
    str | None,
    typer.Option(
        "--subtensor.network", "--network", help="Chain, or the URL of an embedded ledger.  [env: BT_NETWORK]"
    ),
]
Endpoint = Annotated[
    str | None,
    typer.Option(
        "--subtensor.chain_endpoint", "--chain-endpoint", help="Chain node.  [env: BT_CHAIN_ENDPOINT]"
    ),
]
Netuid = Annotated[int | None, typer.Option("--netuid", help="Subnet number.  [env: IOTA_NETUID]")]


@app.command()
def start(
    orchestrator: Annotated[
        str | None, typer.Option(help="URL of the run's orchestrator.  [env: IOTA_ORCHESTRATOR]")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Receipts, frames and snapshots; one per miner.  [env: IOTA_DATA_DIR]")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda, cuda:1 ...  [env: IOTA_DEVICE]")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads; all cores if not given.  [env: IOTA_THREADS]")
    ] = None,
    recompute: Annotated[
        str | None, typer.Option(help="never, auto or always.  [env: IOTA_MINER_RECOMPUTE]")
    ] = None,
    snapshot_bytes: Annotated[
        str | None, typer.Option(help="Disk for snapshots, as 4GiB.  [env: IOTA_MINER_SNAPSHOT_BYTES]")
    ] = None,
    wallet_name: WalletName = None,
    wallet_hotkey: WalletHotkey = None,
    wallet_path: WalletPath = None,
    network: Network = None,
    chain_endpoint: Endpoint = None,
    netuid: Netuid = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
) -> None:
    """Join a run and train until it ends. Ctrl-C stops; starting again continues from the data directory."""
    import asyncio
    import logging

    from iota.settings import MinerSettings
    from miner.run import mine

    settings = MinerSettings.load(
        orchestrator=orchestrator,
        data_dir=data_dir,
        device=device,
        threads=threads,
        recompute=recompute,
        snapshot_bytes=snapshot_bytes,
        wallet_name=wallet_name,
        wallet_hotkey=wallet_hotkey,
        wallet_path=wallet_path,
        network=network,
        chain_endpoint=chain_endpoint,
        netuid=netuid,
        log_level=log_level,
    )
    logging.basicConfig(
        level=settings.log_level.value, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    asyncio.run(mine(settings))


@app.command()
def register(
    wallet_name: WalletName = None,
    wallet_hotkey: WalletHotkey = None,
    wallet_path: WalletPath = None,
    network: Network = None,
    chain_endpoint: Endpoint = None,
    netuid: Netuid = None,
) -> None:
    """Register the hotkey as a miner on the subnet; does nothing if it is registered already."""
    import asyncio

    from iota.chain.open_chain import open_chain
    from iota.protocol.keys import load_hotkey
    from iota.protocol.messages import Role
    from iota.settings import ChainSettings

    settings = ChainSettings.load(
        wallet_name=wallet_name,
        wallet_hotkey=wallet_hotkey,
        wallet_path=wallet_path,
        network=network,
        chain_endpoint=chain_endpoint,
        netuid=netuid,
    )
    hotkey = load_hotkey(settings.wallet_name, settings.wallet_hotkey, settings.wallet_path)

    async def go() -> None:
        async with open_chain(settings.chain, hotkey) as chain:
            uid = await chain.uid(settings.netuid, hotkey.ss58)
            if uid is None:
                (await chain.register(settings.netuid, Role.MINER)).check()
                uid = await chain.uid(settings.netuid, hotkey.ss58)
            typer.echo(f"{hotkey.ss58} is uid {uid} of subnet {settings.netuid}")

    asyncio.run(go())


def main() -> None:
    """Console entry point."""
    run_command(app)


if __name__ == "__main__":
    main()
