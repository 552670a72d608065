"""The hash chain that a validator commits to before it audits, so that it cannot choose its draws.

Link n is BLAKE3 applied N - n times to a secret seed. The tip (link 0) stands on the chain before the
first draw; epoch e reveals link e + 1, which hashes e + 1 times to the tip. Nobody can compute a
link from those before it, and its owner can reveal no other.
"""

from __future__ import annotations

from dataclasses import dataclass

from blake3 import blake3

SEED_BYTES = 32
_DOMAIN = b"iota/links/1\n"


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


def _hashed(value: bytes, times: int) -> bytes:
    for _ in range(times):
        value = blake3(value).digest()
    return value
