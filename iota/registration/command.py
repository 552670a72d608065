"""`iota-miner register` and `iota-validator register`."""

from __future__ import annotations

from typing import Annotated

import typer

from iota.console.settings_command import settings_command
from iota.settings import WalletSettings

_HELP = """Register the hotkey as a {role} on the subnet; does nothing if it is registered already.

The price is shown first and must be agreed to. The coldkey pays and signs: this is the only command that
opens it, and the hotkey's node needs no copy of it.
"""
MaxBurn = Annotated[
    float | None,
    typer.Option(help="Most TAO to pay; 10 % above the price that is shown, if not given.", min=0.0),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Agree to the price without being asked.")]


def add_register(app: typer.Typer, role: str) -> None:
    """Adds the command `register` to `app`; `role` is a `Role` as text, which `--help` need not import."""

    @settings_command(app, WalletSettings, help=_HELP.format(role=role))
    def register(settings: WalletSettings, max_burn: MaxBurn = None, yes: Yes = False) -> None:
        import asyncio

        from iota.console.prompts import TerminalPrompts
        from iota.protocol.messages import Role
        from iota.registration.register import register

        prompts = TerminalPrompts(settings, yes=yes)
        typer.echo(asyncio.run(register(settings, Role(role), prompts, max_cost_tao=max_burn)))
