"""Flags for messages that name another command: they give it the wallet or subnet of this one."""

from __future__ import annotations

from dataclasses import replace

from iota.console.redaction import without_secrets
from iota.settings import WALLET, ChainSettings, settings_of


def wallet_flags(settings: ChainSettings) -> str:
    """`--wallet.name NAME --wallet.hotkey HOTKEY --wallet.path FOLDER`, as set here."""
    return _flags(settings, *WALLET)


def chain_flags(settings: ChainSettings) -> str:
    """`--network NETWORK --netuid N`, as set here; the defaults would mean a subnet of finney.

    A URL that may contain a key is written as `URL`, since the message may be logged.
    """
    shown = settings.chain if without_secrets(settings.chain) == settings.chain else "URL"
    return _flags(replace(settings, network=shown), "network", "netuid")


def _flags(settings: ChainSettings, *names: str) -> str:
    return " ".join(f"{s.flags[0]} {getattr(settings, s.name)}" for s in settings_of(type(settings), names))
