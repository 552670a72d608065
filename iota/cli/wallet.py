"""`iota wallet`: creates and shows the keys of a node, for machines without `btcli`."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, TextIO

import typer

from iota.console.command_flags import command_line
from iota.console.settings_command import settings_command
from iota.settings import WALLET, WalletSettings

app = typer.Typer(help="The keys of a node, in the standard Bittensor wallet layout.", no_args_is_help=True)


@settings_command(app, WalletSettings, only=WALLET)
def new(
    settings: WalletSettings,
    coldkey: Annotated[
        bool,
        typer.Option("--coldkey", help="Make a coldkey too, which pays and owns; best on another machine."),
    ] = False,
    mnemonic_file: Annotated[
        Path | None,
        typer.Option(help="Write the coldkey's mnemonic to this new file instead of the terminal."),
    ] = None,
) -> None:
    """Create a hotkey, unencrypted as nodes need it and readable by you alone, and with --coldkey a coldkey.

    A coldkey is encrypted with a password. Its mnemonic, the one backup there is, is shown once.
    """
    from iota.identity import keys

    name, hotkey, folder = settings.wallet_name, settings.wallet_hotkey, settings.wallet_path
    path = keys.hotkey_path(name, hotkey, folder)
    if path.exists():
        raise keys.WalletExists(f"{path} exists already, and keys are never overwritten: choose another name")
    if coldkey:
        _new_coldkey(settings, mnemonic_file)
    created = keys.create_hotkey(name, hotkey, folder)
    typer.echo(created.ss58)
    typer.echo(f"hotkey stored in {path}: copy this file to a safe place, it is the key itself", err=True)


@settings_command(app, WalletSettings, only=WALLET)
def show(settings: WalletSettings) -> None:
    """Print the hotkey's address, where the keys lie and what is amiss with their files; nothing secret."""
    from iota.identity import keys

    name, hotkey, folder = settings.wallet_name, settings.wallet_hotkey, settings.wallet_path
    typer.echo(keys.load_hotkey(name, hotkey, folder).ss58)
    path = keys.hotkey_path(name, hotkey, folder)
    typer.echo(f"hotkey   {path}, not encrypted, as a node needs it{_open_to_others(path)}", err=True)
    typer.echo(f"coldkey  {_coldkey_line(name, folder)}", err=True)


def _new_coldkey(settings: WalletSettings, mnemonic_file: Path | None) -> None:
    from iota.console.prompts import TerminalPrompts
    from iota.identity import coldkey, keys

    path = coldkey.coldkey_path(settings.wallet_name, settings.wallet_path)
    if path.exists():
        raise keys.WalletExists(f"{path} exists already, and keys are never overwritten: choose another name")
    if mnemonic_file is None and not sys.stdout.isatty():
        raise ValueError(
            "the mnemonic is only shown on a terminal: give --mnemonic-file FILE to have it there"
        )
    password = TerminalPrompts(settings).new_password(path)
    with _mnemonic_output(mnemonic_file) as output:
        key, mnemonic = coldkey.create_coldkey(settings.wallet_name, settings.wallet_path, password)
        output.write(f"{mnemonic}\n")
    where = "above" if mnemonic_file is None else f"in {mnemonic_file}"
    typer.echo(
        f"coldkey {key.ss58} stored in {path}, encrypted. The 12 words {where} restore it, and "
        "give access to its TAO: keep them on paper, and on no computer",
        err=True,
    )


def _mnemonic_output(file: Path | None) -> AbstractContextManager[TextIO]:
    """The terminal, or the new file `file` with mode 600."""
    if file is None:
        return nullcontext(sys.stdout)
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")


def _coldkey_line(name: str, folder: Path) -> str:
    from iota.identity import coldkey

    address = coldkey.coldkey_address(name, folder) or "address unknown (no coldkeypub.txt)"
    path = coldkey.coldkey_path(name, folder)
    if not path.exists():
        return f"{address}, its private key is not on this machine"
    locked = "encrypted" if coldkey.coldkey_is_encrypted(name, folder) else "NOT ENCRYPTED"
    return f"{address}, its private key is in {path}, {locked}{_open_to_others(path)}"


def _open_to_others(path: Path) -> str:
    """A warning where the mode of `path` gives other users access; else empty."""
    mode = path.stat().st_mode & 0o777
    return (
        f"; OTHERS CAN OPEN IT (mode {mode:03o}): {command_line('chmod 600', path)}" if mode & 0o077 else ""
    )
