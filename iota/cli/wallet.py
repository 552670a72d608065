"""`iota wallet`: the hotkey of a node. Coldkeys are never touched: keep them off nodes, with `btcli`."""

from __future__ import annotations

from typing import Annotated, NoReturn

import typer

app = typer.Typer(help="The node's hotkey, in the standard Bittensor wallet layout.", no_args_is_help=True)

WalletName = Annotated[str, typer.Option("--wallet.name", "--wallet-name", help="The wallet's name.")]
HotkeyName = Annotated[str, typer.Option("--wallet.hotkey", "--wallet-hotkey", help="The hotkey's name.")]
WalletPath = Annotated[str, typer.Option("--wallet.path", "--wallet-path", help="The folder of wallets.")]
_DEFAULT_PATH = "~/.bittensor/wallets"


@app.command()
def new(
    name: WalletName = "default", hotkey: HotkeyName = "default", path: WalletPath = _DEFAULT_PATH
) -> None:
    """Create a hotkey. The file is not encrypted, as nodes need it, and only you can read it."""
    from iota.protocol import keys

    try:
        created = keys.create_hotkey(name, hotkey, path)
    except (ValueError, OSError) as error:
        _fail(error)
    typer.echo(created.ss58)
    typer.echo(
        f"stored in {keys.hotkey_path(name, hotkey, path)}: back it up, it cannot be restored", err=True
    )


@app.command()
def show(
    name: WalletName = "default", hotkey: HotkeyName = "default", path: WalletPath = _DEFAULT_PATH
) -> None:
    """Print the hotkey's public address, and nothing secret."""
    from iota.protocol import keys

    try:
        typer.echo(keys.load_hotkey(name, hotkey, path).ss58)
    except ValueError as error:
        _fail(error)


def _fail(error: Exception) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(2) from None
