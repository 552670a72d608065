"""Flags that give another command the wallet or the subnet of this one, for messages that name a command."""

from __future__ import annotations

from dataclasses import replace

from iota.console.redaction import without_secrets
from iota.settings import WALLET, ChainSettings, settings_of


def wallet_flags(settings: ChainSettings) -> str:
    """`--wallet.name w --wallet.hotkey h --wallet.path p`."""
    return _flags(settings, *WALLET)


def chain_flags(settings: ChainSettings) -> str:
    """`--network n --netuid 9`: without them the command would work on a subnet of finney.

    A URL that may hold a key is written as `URL`: the operator knows it, and a log must not.
    """
    shown = settings.chain if without_secrets(settings.chain) == settings.chain else "URL"
    return _flags(replace(settings, network=shown), "network", "netuid")


def _flags(settings: ChainSettings, *names: str) -> str:
    return " ".join(f"{s.flags[0]} {getattr(settings, s.name)}" for s in settings_of(type(settings), names))
