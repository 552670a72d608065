"""Hotkeys and digests of a simulated swarm: well-formed, without keys or content behind them."""

from __future__ import annotations

from typing import Final

from blake3 import blake3

_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
"""Base58, in which addresses are written."""


def fake_hotkey(number: int) -> str:
    """A text in the form of a hotkey's address, different for each of the first 57 numbers."""
    return "5" + "".join(_ALPHABET[(number + 7 * k) % len(_ALPHABET)] for k in range(47))


def digest(*parts: object) -> str:
    """A digest for content that `parts` identify: equal parts, equal digest."""
    return blake3(repr(parts).encode()).hexdigest()
