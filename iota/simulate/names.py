"""Hotkeys and digests of a simulated swarm: of the right form, and nothing behind them."""

from __future__ import annotations

from typing import Final

from blake3 import blake3

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def fake_hotkey(number: int) -> str:
    """A text of a hotkey's form, one for each of the first 57 numbers."""
    return "5" + "".join(_ALPHABET[(number + 7 * k) % len(_ALPHABET)] for k in range(47))


def digest(*parts: object) -> str:
    """What stands for the content that `parts` name."""
    return blake3(repr(parts).encode()).hexdigest()
