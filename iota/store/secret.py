"""The embedded store's secret, in a file that only its owner can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from iota.store.signing import check_secret


def load_secret(path: Path) -> bytes:
    """The secret in `path`, without white space around it.

    Raises:
        ValueError: the file cannot be read, or holds too short a secret.
    """
    try:
        return check_secret(path.read_bytes().strip())
    except OSError as error:
        raise ValueError(
            f"the store's secret file {path} cannot be read ({error.strerror}): copy it from the machine that"
            " runs `iota store serve`, and name it with --store-secret-file"
        ) from error


def load_or_create_secret(path: Path) -> bytes:
    """Like `load_secret`; a file that is not there is made, with 32 random bytes in hex, mode 600."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        # A link appears whole, and never in the place of a secret that another process has just made.
        if not path.exists():
            os.link(part, path)
    except FileExistsError:
        pass
    finally:
        part.unlink(missing_ok=True)
    return load_secret(path)
