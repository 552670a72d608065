"""Signatures of hotkeys (sr25519), and the bytes that they are made over. Pure.

This imports the SDK's native core (`bittensor_core`: 1 ms, 3 MB) and not the `bittensor` package
(0.4 s, 46 MB), so that a program that only checks signatures stays small.
"""

from __future__ import annotations

from typing import Final

import bittensor_core as core  # type: ignore[import-untyped, unused-ignore]

SIGNATURE_BYTES: Final = 64
"""Length of an sr25519 signature."""

_SS58_FORMAT: Final = 42
_SS58_MAX_CHARS: Final = 64  # a 32-byte key takes 48; refuse absurd input before decoding it


def signing_bytes(kind: str, payload: bytes) -> bytes:
    """What is signed for a record of `kind`: `iota/<kind>/1`, a newline, the payload.

    The prefix keeps a signature over one kind of record from passing for another's.

    Raises:
        ValueError: `kind` is not made of lower-case letters, digits and dashes.
    """
    if not kind or not all(c.isascii() and (c.islower() or c.isdigit() or c == "-") for c in kind):
        raise ValueError(f"a kind is lower-case letters, digits and dashes, not {kind!r}")
    return b"iota/" + kind.encode() + b"/1\n" + payload


def verify(message: bytes, signature: bytes, ss58: str) -> bool:
    """Whether `signature` is that of the hotkey `ss58` over `message`; malformed input is False."""
    if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
        return False
    if not isinstance(message, bytes) or not is_address(ss58):
        return False
    try:
        return bool(core.verify(message, signature, ss58, core.CRYPTO_SR25519))
    except ValueError:
        return False


def is_address(ss58: object) -> bool:
    """Whether this is an address in its one canonical spelling.

    The same public key has an SS58 spelling per network; only the Substrate default (42), which
    Bittensor uses, is taken, so that one key is one name.
    """
    if not isinstance(ss58, str) or len(ss58) > _SS58_MAX_CHARS:
        return False
    try:
        return bool(core.ss58_encode(core.ss58_decode(ss58), _SS58_FORMAT) == ss58)
    except (ValueError, TypeError):
        return False
