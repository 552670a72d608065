"""Signatures of hotkeys (sr25519), and the bytes that they cover. Pure.

This imports the SDK's native core (`bittensor_core`: 1 ms, 3 MB) and not the `bittensor` package (0.4 s,
46 MB), so that a program that only verifies signatures stays small.
"""

from __future__ import annotations

import re
from typing import Final

import bittensor_core as core  # type: ignore[import-untyped, unused-ignore]

SIGNATURE_BYTES: Final = 64
"""Length of an sr25519 signature."""

_DOMAIN: Final = re.compile(r"[a-z0-9-]+/[1-9][0-9]*")
_SS58_FORMAT: Final = 42
"""The network prefix of Bittensor's addresses (Substrate's default)."""
_SS58_MAX_CHARS: Final = 64
"""A 32-byte key takes 48: longer input is refused before it is decoded."""


def signing_bytes(domain: str, payload: bytes) -> bytes:
    """The bytes to sign: `iota/<domain>`, a newline, the payload.

    The domain is the kind of record and the version of its form (`frame/1`), so that a signature over one
    kind or version is not valid for another. Raises ValueError for a malformed domain.
    """
    if not _DOMAIN.fullmatch(domain):
        raise ValueError(f"a domain is a kind and the version of its form, as `frame/1`, not {domain!r}")
    return b"iota/" + domain.encode() + b"\n" + payload


def verify(message: bytes, signature: bytes, ss58: str) -> bool:
    """Whether `signature` is that of the hotkey `ss58` over `message`. False for malformed input."""
    if not isinstance(signature, bytes) or len(signature) != SIGNATURE_BYTES:
        return False
    if not isinstance(message, bytes) or not is_address(ss58):
        return False
    try:
        return bool(core.verify(message, signature, ss58, core.CRYPTO_SR25519))
    except ValueError:
        return False


def is_address(ss58: object) -> bool:
    """Whether this is an ss58 address in the one accepted spelling.

    A public key has a different ss58 address for each network prefix. Only Bittensor's (42) is accepted, so
    that a key has one name.
    """
    if not isinstance(ss58, str) or len(ss58) > _SS58_MAX_CHARS:
        return False
    try:
        return bool(core.ss58_encode(core.ss58_decode(ss58), _SS58_FORMAT) == ss58)
    except (ValueError, TypeError):
        return False
