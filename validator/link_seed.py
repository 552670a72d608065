"""The secret seed of a validator's hash chain, on disk."""

from __future__ import annotations

import secrets
from pathlib import Path

from iota.files import write_whole
from validator.core.links import SEED_BYTES


class SeedUnreadable(ValueError):
    """The seed file exists but does not hold a seed."""


def load_or_create_seed(path: Path) -> bytes:
    """The seed in the file at `path`; the first call creates it with mode 600.

    Raises SeedUnreadable if the file holds anything else. A new seed would not match the committed tip.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, secrets.token_bytes(SEED_BYTES), durable=True, mode=0o600)
    seed = path.read_bytes()
    if len(seed) != SEED_BYTES:
        raise SeedUnreadable(
            f"{path} holds {len(seed)} bytes and not the {SEED_BYTES} of a seed: restore it from a backup,"
            " or start with an empty --data-dir and a new hotkey"
        )
    return seed
