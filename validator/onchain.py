"""The validator's dealings with the chain: its committed tip, the draw's block, its weights."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from iota.chain import Chain, RateLimited, TxResult, Unavailable
from validator.links import commitment, committed_tip

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
        """
        standing = await self._chain.commitment(self.netuid, self._hotkey)
        if standing is not None and committed_tip(standing.data, run) == tip:
            return
        result: TxResult | None = None
        for _ in range(COMMIT_TRIES):
            result = await self._chain.commit(self.netuid, commitment(run, tip))
            if result.ok:
                return
            if result.code != "rate_limited":
                break
            await self._nap(1)
        assert result is not None
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
            except Unavailable as error:
                log.warning("the chain does not answer: %s", error)
                await self._nap(1)

    async def head(self) -> int:
        return (await self._chain.head()).number

    async def tempo_index(self) -> int:
        """How many tempos have passed."""
        return (await self._chain.epoch_status(self.netuid)).index

    async def set_weights(self, weights: Mapping[str, float], burn: float) -> int | None:
        """Set weights by hotkey; `burn` goes to the owner's uid. Returns the block, None if nothing was set.

        Raises:
            RateLimited, ChainError
        """
        subnet = await self._chain.subnet(self.netuid)
        uids = {neuron.hotkey: neuron.uid for neuron in subnet.neurons}
        by_uid = {uids[hotkey]: weight for hotkey, weight in weights.items() if hotkey in uids}
        if burn > 0 and subnet.owner_uid is not None:
            by_uid[subnet.owner_uid] = by_uid.get(subnet.owner_uid, 0.0) + burn
        if not any(by_uid.values()):
            return None
        result = await self._chain.set_weights(self.netuid, by_uid, subnet.weights_version)
        return result.check().block

    async def set_last_weights(
        self, weights: Mapping[str, float], burn: float, patience_s: float
    ) -> int | None:
        """Like `set_weights`, but waits out the rate limit for at most `patience_s`. Raises ChainError."""
        try:
            async with asyncio.timeout(patience_s):
                while True:
                    try:
                        return await self.set_weights(weights, burn)
                    except (RateLimited, Unavailable) as error:
                        log.info("weights are not taken yet: %s", error)
                        await self._nap(1)
        except TimeoutError:
            raise Unavailable(f"the chain took no weights within {patience_s:g} s") from None

    async def _nap(self, blocks: int) -> None:
        await asyncio.sleep(max(_SHORTEST_NAP_S, blocks * self._block_time_s))
