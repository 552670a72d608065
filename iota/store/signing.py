"""Signed URLs of the embedded store: one key, one operation, one size, until one time.

The signature is HMAC-SHA256 over all of these. The path and query stay within characters that
no HTTP library rewrites, so what was signed is what arrives.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from enum import StrEnum

MIN_SECRET = 16
_DOMAIN = "iota/store-url/1"


class Op(StrEnum):
    PUT = "put"
    GET = "get"
    LIST = "list"
    DELETE = "delete"


def check_secret(secret: bytes) -> bytes:
    """Return `secret`; raises `ValueError` if it is too short to keep anybody out."""
    if len(secret) < MIN_SECRET:
        raise ValueError(
            f"the store's secret has {len(secret)} bytes: give at least {MIN_SECRET} random ones"
        )
    return secret


def signed_query(secret: bytes, op: Op, key: str, size: int, expires: int) -> str:
    """Query string that authorises `op` on `key` until the Unix time `expires`, in ms.

    `size` is the exact number of bytes of a PUT, and 0 for every other operation.
    """
    return f"op={op.value}&size={size}&expires={expires}&sig={_signature(secret, op, key, size, expires)}"


def verify(secret: bytes, op: Op, key: str, query: Mapping[str, str], now_ms: int) -> int:
    """The signed size, if `query` authorises `op` on `key` at `now_ms`.

    Raises:
        PermissionError: if it does not; the text says what to do.
    """
    try:
        size, expires, given = int(query["size"]), int(query["expires"]), query["sig"]
    except (KeyError, ValueError):
        raise PermissionError("the URL has no signature: ask the orchestrator for a presigned one") from None
    wanted = _signature(secret, op, key, size, expires)
    if not hmac.compare_digest(wanted.encode(), given.encode()):
        raise PermissionError("the URL's signature is for another method, key, size or store")
    if expires <= now_ms:
        raise PermissionError(f"the URL expired {(now_ms - expires) / 1000:.1f} s ago: ask for a new one")
    return size


def _signature(secret: bytes, op: Op, key: str, size: int, expires: int) -> str:
    # Fields cannot run into each other: the key's alphabet has no newline, the rest are numbers.
    message = f"{_DOMAIN}\n{op.value}\n{key}\n{size}\n{expires}"
    return hmac.digest(secret, message.encode(), "sha256").hex()
