"""What clients are told without asking again: new heads, final heads, the fate of their extrinsics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tests.support.subtensor.blocks import Extrinsic
from tests.support.subtensor.chain import Subtensor


class Topic(Enum):
    NEW_HEADS = "new heads"
    FINALIZED_HEADS = "finalized heads"


@dataclass
class Watch:
    """An extrinsic that a client follows, and how far it has got."""

    extrinsic: Extrinsic
    block: str | None = None
    """The block that holds it, by what the client was told."""
    over: bool = False
    """The last notice is out."""

    def progress(self, chain: Subtensor) -> Iterator[Any]:
        """The notices that are due, each said once."""
        found = chain.find(self.extrinsic.hash)
        block = found[0] if found else None
        if self.block is not None and (block is None or block.hash != self.block):
            yield {"retracted": self.block}
            self.block = None
        if block is not None:
            if self.block is None:
                self.block = block.hash
                yield {"inBlock": block.hash}
            if block.number <= chain.finalized.number:
                self.over = True
                yield {"finalized": block.hash}
        elif self.extrinsic.hash not in {each.hash for each in chain.pool.waiting}:
            self.over = True
            yield self._lost(chain)

    def _lost(self, chain: Subtensor) -> Any:
        """Why it is neither in a block nor waiting for one."""
        for each in chain.pool.waiting:
            if (each.signer, each.nonce) == (self.extrinsic.signer, self.extrinsic.nonce):
                return {"usurped": each.hash}
        era = self.extrinsic.era
        outdated = chain.next_nonce(self.extrinsic.signer) > self.extrinsic.nonce
        return "invalid" if outdated or (era is not None and era[1] <= chain.head.number + 1) else "dropped"
