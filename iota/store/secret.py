"""The embedded store's secret, in a file that only its owner can read."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

from iota.files import write_whole
from iota.store.embedded_signing import check_secret


def load_secret(path: Path) -> bytes:
    """Read the secret in `path`, without surrounding white space.

    Raises:
        ValueError: if the file cannot be read, or the secret is too short.
    """
    try:
        return check_secret(path.read_bytes().strip())
    except OSError as error:
        raise ValueError(
            f"the store's secret file {path} cannot be read ({error.strerror}): copy it from the machine that"
            " runs `iota store serve`, and name it with --store-secret-file"
        ) from error


def load_or_create_secret(path: Path) -> bytes:
    """Like `load_secret`, but creates a missing file with 32 random bytes in hex and mode 600."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        with suppress(FileExistsError):  # another process has just created it
            write_whole(path, f"{secrets.token_hex(32)}\n".encode(), mode=0o600, replace=False)
    return load_secret(path)
