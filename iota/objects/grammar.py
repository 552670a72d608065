"""The grammar of keys and prefixes in an object store."""

from __future__ import annotations

import re

MAX_KEY = 512
MAX_SEGMENT = 200
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def validate_key(key: str) -> str:
    """Return `key` if it may name an object.

    A key is one or more segments of `[A-Za-z0-9._-]` joined by `/`; no segment is empty or begins
    with a dot, and `..` occurs nowhere. No key may be a folder of another ('a' beside 'a/b').

    Raises:
        ValueError: on any other text.
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
    """Return the folder `prefix` names, ending in `/`, or "" for the whole store.

    A prefix is a folder and not a beginning of text: `frames/1` does not match `frames/10/x`.

    Raises:
        ValueError: where it could be no key's folder.
    """
    folder = prefix.removesuffix("/")
    return validate_key(folder) + "/" if folder else ""
