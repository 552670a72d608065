"""The hash chain that a validator commits to before it audits, so that it cannot choose its draws.

Link n is BLAKE3 applied N - n times to a secret seed, where N is the number of epochs. The tip (link 0) is
committed on the blockchain before the first draw. Epoch e reveals link e + 1, which hashes e + 1 times to
the tip. A link cannot be computed from earlier ones, and its owner cannot reveal another.
"""

from __future__ import annotations

from dataclasses import dataclass

from blake3 import blake3

SEED_BYTES = 32
"""The size of a BLAKE3 digest, so that every link has it too."""
_DOMAIN = b"iota/links/1\n"
"""Prefix of a commitment: marks it as ours, with the version of its form."""


@dataclass(frozen=True)
class LinkChain:
    """One validator's links for a run of `epochs` epochs, computed from its secret seed."""

    seed: bytes
    epochs: int

    def link(self, epoch: int) -> str:
        """The link to reveal for `epoch`, in hex. Raises ValueError outside the run."""
        if not 0 <= epoch < self.epochs:
            raise ValueError(f"the chain has links for epochs 0 to {self.epochs - 1}, not for {epoch}")
        return _hashed(self.seed, self.epochs - epoch - 1).hex()

    @property
    def tip(self) -> str:
        """Link 0 in hex: the value to commit before the first draw."""
        return _hashed(self.seed, self.epochs).hex()


def verify_link(link: str, epoch: int, tip: str | None) -> bool:
    """Whether `link` is the link of `epoch` in the chain whose tip was committed; False without a tip."""
    try:
        raw = bytes.fromhex(link)
    except ValueError:
        return False
    return len(raw) == SEED_BYTES and epoch >= 0 and _hashed(raw, epoch + 1).hex() == tip


def commitment(run: str, tip: str) -> bytes:
    """The bytes to commit on the blockchain. They name the run, so that a tip is valid for one run."""
    return _DOMAIN + bytes.fromhex(run) + bytes.fromhex(tip)


def committed_tip(data: bytes, run: str) -> str | None:
    """The tip that a commitment holds for `run`; None if it is anything else."""
    head = _DOMAIN + bytes.fromhex(run)
    if not data.startswith(head) or len(data) != len(head) + SEED_BYTES:
        return None
    return data[len(head) :].hex()


def _hashed(value: bytes, times: int) -> bytes:
    for _ in range(times):
        value = blake3(value).digest()
    return value
