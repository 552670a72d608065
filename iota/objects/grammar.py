"""The grammar of keys and prefixes in an object store."""

from __future__ import annotations

import re

MAX_KEY = 512
"""Characters; S3 allows 1024 bytes."""
MAX_SEGMENT = 200
"""Characters of a segment; file systems allow 255 bytes in a name."""
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def validate_key(key: str) -> str:
    """Return `key` if it is a valid object key. Raises ValueError for any other text.

    A key is one or more segments of `[A-Za-z0-9._-]` joined by `/`. No segment is empty or begins with a dot,
    and `..` occurs nowhere, so that a key is safe as a file's path. Stores also refuse a key that is a folder
    of another one ('a' beside 'a/b').
    """
    segments = key.split("/")
    fits = all(len(s) <= MAX_SEGMENT and _SEGMENT.fullmatch(s) for s in segments)
    if fits and len(key) <= MAX_KEY and ".." not in key:
        return key
    raise ValueError(
        f"{key[:80]!r} is no object key: use segments of A-Z a-z 0-9 . _ - joined by '/', none empty,"
        f" none beginning with '.', no '..', at most {MAX_KEY} characters"
    )


def validate_prefix(prefix: str) -> str:
    """Return the folder that `prefix` names, with a final `/`; "" for the whole store.

    A prefix matches whole segments only: `frames/1` does not match `frames/10/x`. Raises ValueError for a
    text that cannot be a folder of a key.
    """
    folder = prefix.removesuffix("/")
    return validate_key(folder) + "/" if folder else ""
