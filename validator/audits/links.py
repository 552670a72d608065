"""The hash chain that a validator commits to before it audits, so that it cannot choose its draws.

Link n is BLAKE3 applied N - n times to a secret seed. The tip (link 0) stands on the chain before the
first draw; epoch e reveals link e + 1, which hashes e + 1 times to the tip. Nobody can compute a
link from those before it, and its owner can reveal no other.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

SEED_BYTES = 32
_DOMAIN = b"iota/links/1\n"


class SeedUnreadable(ValueError):
    """The seed file is there but is no seed."""


@dataclass(frozen=True)
class LinkChain:
    """`epochs` links and the tip."""

    seed: bytes
    epochs: int

    def link(self, epoch: int) -> str:
        """What is revealed for `epoch`, hex."""
        if not 0 <= epoch < self.epochs:
            raise ValueError(f"the chain has links for epochs 0 to {self.epochs - 1}, not for {epoch}")
        return _hashed(self.seed, self.epochs - epoch - 1).hex()

    @property
    def tip(self) -> str:
        return _hashed(self.seed, self.epochs).hex()


def verify_link(link: str, epoch: int, tip: str) -> bool:
    """Whether `link` is the one that the committed `tip` allows for `epoch`."""
    try:
        raw = bytes.fromhex(link)
    except ValueError:
        return False
    return len(raw) == SEED_BYTES and epoch >= 0 and _hashed(raw, epoch + 1).hex() == tip


def commitment(run: str, tip: str) -> bytes:
    """The bytes that go on the chain: they name the run, so that one tip serves one run."""
    return _DOMAIN + bytes.fromhex(run) + bytes.fromhex(tip)


def committed_tip(data: bytes, run: str) -> str | None:
    """The tip that a commitment names for `run`; None where it is something else."""
    head = _DOMAIN + bytes.fromhex(run)
    if not data.startswith(head) or len(data) != len(head) + SEED_BYTES:
        return None
    return data[len(head) :].hex()


def load_or_create_seed(path: Path) -> bytes:
    """The secret seed on disk, made at the first call; mode 600.

    Raises:
        SeedUnreadable: the file holds something else; a new seed would not fit the committed tip.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.unlink(missing_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(SEED_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    seed = path.read_bytes()
    if len(seed) != SEED_BYTES:
        raise SeedUnreadable(
            f"{path} holds {len(seed)} bytes and not the {SEED_BYTES} of a seed: restore it from a backup,"
            " or start with an empty --data-dir and a new hotkey"
        )
    return seed


def _hashed(value: bytes, times: int) -> bytes:
    for _ in range(times):
        value = blake3(value).digest()
    return value
