"""`iota-validator`: register a hotkey, and validate with it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iota.cli.errors import run_command

app = typer.Typer(
    help="Re-execute sampled work of a run, score its miners, set weights.", no_args_is_help=True
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
        Path | None, typer.Option(help="Seed, verdicts and scores; one per validator.  [env: IOTA_DATA_DIR]")
    ] = None,
    compute_share: Annotated[
        float | None,
        typer.Option(
            help="Largest share of this machine's compute to use.  [env: IOTA_VALIDATOR_COMPUTE_SHARE]"
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="CPU threads of a replay; 1 if not given.  [env: IOTA_THREADS]")
    ] = None,
    wallet_name: WalletName = None,
    wallet_hotkey: WalletHotkey = None,
    wallet_path: WalletPath = None,
    network: Network = None,
    chain_endpoint: Endpoint = None,
    netuid: Netuid = None,
    log_level: Annotated[str | None, typer.Option(help="DEBUG, INFO, WARNING or ERROR.")] = None,
) -> None:
    """Audit a run until it ends. Ctrl-C stops; starting again continues from the data directory."""
    import asyncio
    import logging

    from iota.settings import ValidatorSettings

    settings = ValidatorSettings.load(
        orchestrator=orchestrator,
        data_dir=data_dir,
        compute_share=compute_share,
        threads=threads,
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
    from validator.run import validate

    asyncio.run(validate(settings))


@app.command()
def register(
    wallet_name: WalletName = None,
    wallet_hotkey: WalletHotkey = None,
    wallet_path: WalletPath = None,
    network: Network = None,
    chain_endpoint: Endpoint = None,
    netuid: Netuid = None,
) -> None:
    """Register the hotkey as a validator on the subnet; does nothing if it is registered already."""
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
                (await chain.register(settings.netuid, Role.VALIDATOR)).check()
                uid = await chain.uid(settings.netuid, hotkey.ss58)
            typer.echo(f"{hotkey.ss58} is uid {uid} of subnet {settings.netuid}")

    asyncio.run(go())


def main() -> None:
    """Console entry point."""
    run_command(app)


if __name__ == "__main__":
    main()
