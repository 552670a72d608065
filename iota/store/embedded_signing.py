"""Signed URLs of the embedded store. Each is valid for one key, operation and size until it expires.

The signature is HMAC-SHA256 over these four values. Path and query contain only characters that HTTP
libraries leave as they are, so that the server sees the signed text.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from enum import StrEnum

MIN_SECRET = 16
"""Bytes: 128 bits cannot be guessed."""
_DOMAIN = "iota/store-url/1"


class UrlOp(StrEnum):
    """Operations that a URL can authorise. `LIST` and `DELETE` are for folders."""

    PUT = "put"
    GET = "get"
    LIST = "list"
    DELETE = "delete"


def check_secret(secret: bytes) -> bytes:
    """Return `secret`. Raises `ValueError` if it is shorter than `MIN_SECRET` bytes."""
    if len(secret) < MIN_SECRET:
        raise ValueError(
            f"the store's secret has {len(secret)} bytes: give at least {MIN_SECRET} random ones"
        )
    return secret


def signed_query(secret: bytes, op: UrlOp, key: str, size: int, expires: int) -> str:
    """Query string that authorises `op` on `key` until `expires` (Unix time in ms).

    `size` is the exact number of bytes of a PUT, and 0 for other operations.
    """
    return f"op={op.value}&size={size}&expires={expires}&sig={_signature(secret, op, key, size, expires)}"


def verify(secret: bytes, op: UrlOp, key: str, query: Mapping[str, str], now_ms: int) -> int:
    """Return the signed size if `query` authorises `op` on `key` at `now_ms`.

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


def _signature(secret: bytes, op: UrlOp, key: str, size: int, expires: int) -> str:
    # The encoding is unambiguous: keys contain no newline, and the other fields are words and numbers.
    message = f"{_DOMAIN}\n{op.value}\n{key}\n{size}\n{expires}"
    return hmac.digest(secret, message.encode(), "sha256").hex()
