"""`iota-miner register` and `iota-validator register`: one command, for two roles."""

from __future__ import annotations

import typer

from iota.console.command import start_logging
from iota.settings.flags import (
    SOURCES,
    ChainEndpoint,
    LogLevel,
    MaxBurn,
    Netuid,
    Network,
    WalletHotkey,
    WalletName,
    WalletPath,
    Yes,
)


def add_register(app: typer.Typer, role: str) -> None:
    """Gives `app` the command `register`; `role` is a `Role`, which is not imported for `--help`."""

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
        given = {name: v for name, v in locals().items() if name not in ("max_burn", "yes", "role")}
        import asyncio

        from iota.chain.registration import register
        from iota.console.prompts import Person
        from iota.protocol.messages import Role
        from iota.settings import WalletSettings

        settings = WalletSettings.load(**given)
        start_logging(settings.log_level)
        person = Person(settings, yes=yes)
        typer.echo(asyncio.run(register(settings, Role(role), person, max_cost_tao=max_burn)))

    app.command("register", epilog=SOURCES, help=_HELP.format(role=role))(register_hotkey)


_HELP = """Register the hotkey as a {role} on the subnet; does nothing if it is registered already.

The price is shown first and must be agreed to. The coldkey pays and signs: this is the only command that
opens it, and the hotkey's node needs no copy of it.
"""
