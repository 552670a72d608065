"""The transaction pool of a node: what waits for a block, and what is not let in."""

from __future__ import annotations

from tests.support.subtensor.blocks import Extrinsic, PoolRefusal


class Pool:
    """Extrinsics by arrival. Those whose nonce is too high wait for the ones before them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        """How many it holds; 0 makes it full."""
        self.waiting: list[Extrinsic] = []

    def check(self, extrinsic: Extrinsic, nonce: int, head: int) -> None:
        """Whether it may enter behind an account nonce and a head.

        Raises:
            PoolRefusal: with the JSON-RPC error of a node.
        """
        if any(known.hash == extrinsic.hash for known in self.waiting):
            raise PoolRefusal(1013, "Transaction is already imported", extrinsic.hash)
        check_lifetime(extrinsic, nonce, head)
        if any((e.signer, e.nonce) == (extrinsic.signer, extrinsic.nonce) for e in self.waiting):
            raise PoolRefusal(
                1014,
                "Priority is too low: (0 vs 0)",
                "The transaction has too low priority to replace another transaction already in the pool.",
            )
        if len(self.waiting) >= self.limit:
            raise PoolRefusal(
                1016, "Immediately Dropped", "The transaction couldn't enter the pool because of the limit"
            )

    def next_nonce(self, address: str, nonce: int) -> int:
        """The first nonce from the account's own on that no extrinsic here has."""
        taken = {e.nonce for e in self.waiting if e.signer == address}
        while nonce in taken:
            nonce += 1
        return nonce

    def remove(self, extrinsic: Extrinsic) -> None:
        self.waiting = [e for e in self.waiting if e.hash != extrinsic.hash]


def check_lifetime(extrinsic: Extrinsic, nonce: int, head: int) -> None:
    """Raises `PoolRefusal` for a nonce or an era that lies in the past of the block after `head`."""
    if extrinsic.nonce < nonce:
        raise PoolRefusal(1010, "Invalid Transaction", "Transaction is outdated")
    if extrinsic.era is not None and not extrinsic.era[0] <= head + 1 < extrinsic.era[1]:
        raise PoolRefusal(1010, "Invalid Transaction", "Transaction has an ancient birth block")
