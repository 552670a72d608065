"""The validator's dealings with the chain for its audits: its committed tip, and the draw's block."""

from __future__ import annotations

import asyncio
import logging

from iota.chain import Chain, ChainError, TxCode, TxResult, Unavailable
from validator.audits.links import commitment, committed_tip

log = logging.getLogger(__name__)

COMMIT_TRIES = 8
_SHORTEST_NAP_S = 0.05


class NotCommitted(ValueError):
    """The chain does not take this validator's commitment."""


class OnChain:
    """One validator on one subnet."""

    def __init__(self, chain: Chain, netuid: int, hotkey: str) -> None:
        self._chain, self.netuid, self._hotkey = chain, netuid, hotkey
        self._block_time_s = 12.0

    async def open(self) -> None:
        """Read what waits depend on. Raises ChainError."""
        self._block_time_s = (await self._chain.info()).block_time_s

    async def commit_tip(self, run: str, tip: str) -> None:
        """Put the tip on the chain unless it stands there already.

        Raises:
            NotCommitted: the chain refuses it, with its reason.
            Unavailable: it came too soon after others.
        """
        standing = await self._chain.commitment(self.netuid, self._hotkey)
        if standing is not None and committed_tip(standing.data, run) == tip:
            return
        result: TxResult | None = None
        for _ in range(COMMIT_TRIES):
            result = await self._chain.commit(self.netuid, commitment(run, tip))
            if result.ok:
                return
            if result.code is not TxCode.RATE_LIMITED:
                break
            await self._nap(1)
        assert result is not None
        if result.code is TxCode.RATE_LIMITED:
            raise Unavailable(
                f"subnet {self.netuid} takes no commitment of this hotkey yet ({result.message}): try again"
                " later"
            )
        raise NotCommitted(
            f"subnet {self.netuid} does not take this validator's commitment ({result.message}):"
            " register its hotkey with `iota-validator register`"
        )

    async def hash_of(self, block: int) -> str:
        """The hash of a block once it is final. Endless until then: whoever waits has a deadline."""
        while True:
            try:
                final = await self._chain.finalized()
                if final.number >= block:
                    return await self._chain.block_hash(block)
                await self._nap(block - final.number)
            except ChainError as error:
                # Also `BadInput` of a node that is behind the one asked before, and the drift of an upgrade.
                log.warning("the chain does not tell the hash of block %d: %s", block, error)
                await self._nap(1)

    async def _nap(self, blocks: int) -> None:
        await asyncio.sleep(max(_SHORTEST_NAP_S, blocks * self._block_time_s))
