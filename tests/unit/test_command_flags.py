"""Flags that a message names for another command: one order, and no key of a chain node."""

from __future__ import annotations

from pathlib import Path

import pytest

from iota.console.command_flags import chain_flags, wallet_flags
from iota.settings import ChainSettings


def test_a_wallet_is_named_by_name_hotkey_and_path() -> None:
    settings = ChainSettings(wallet_name="w", wallet_hotkey="h", wallet_path=Path("/k"))
    assert wallet_flags(settings) == "--wallet.name w --wallet.hotkey h --wallet.path /k"


@pytest.mark.parametrize(
    ("network", "endpoint", "shown"),
    [
        ("test", None, "test"),
        ("test", "ws://127.0.0.1:9944", "ws://127.0.0.1:9944"),
        ("http://127.0.0.1:8000", None, "http://127.0.0.1:8000"),
        ("finney", "wss://node.example/v1/key-that-was-bought", "URL"),
        ("wss://me:secret@node.example", None, "URL"),
    ],
)
def test_a_subnet_is_named_without_a_secret(network: str, endpoint: str | None, shown: str) -> None:
    settings = ChainSettings(network=network, chain_endpoint=endpoint, netuid=12)
    assert chain_flags(settings) == f"--network {shown} --netuid 12"
