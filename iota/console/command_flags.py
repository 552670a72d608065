"""Command lines in messages: quoted for a shell, with the wallet or subnet of this command."""

from __future__ import annotations

import shlex
from dataclasses import replace

from iota.console.redaction import without_secrets
from iota.settings import WALLET, ChainSettings, settings_of


def command_line(command: str, *arguments: object) -> str:
    """`command` (words that need no quotes) with arguments that may, as it can be pasted into a shell."""
    return " ".join([command, *(shlex.quote(str(argument)) for argument in arguments)])


def wallet_flags(settings: ChainSettings) -> str:
    """`--wallet.name NAME --wallet.hotkey HOTKEY --wallet.path FOLDER`, as set here, quoted."""
    return _flags(settings, *WALLET)


def chain_flags(settings: ChainSettings) -> str:
    """`--network NETWORK --netuid N`, as set here, quoted; the defaults would mean a subnet of finney.

    A URL that may contain a key is written as `URL`, since the message may be logged.
    """
    shown = settings.chain if without_secrets(settings.chain) == settings.chain else "URL"
    return _flags(replace(settings, network=shown), "network", "netuid")


def _flags(settings: ChainSettings, *names: str) -> str:
    described = settings_of(type(settings), names)
    return shlex.join(text for s in described for text in (s.flags[0], str(getattr(settings, s.name))))
