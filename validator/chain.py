"""One validator's calls to the chain: its hash-chain commitment, block hashes for draws, and weights."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from iota.chain import (
    Chain,
    ChainError,
    ChainInfo,
    EpochStatus,
    Neuron,
    Subnet,
    TxCode,
    TxResult,
    Unavailable,
)
from validator.core.links import commitment, committed_tip

log = logging.getLogger(__name__)

COMMIT_TRIES: Final = 8
"""Tries, one per block, to get a commitment past the rate limit."""
_MIN_PAUSE_S: Final = 0.05
"""Bounds the polling rate on chains with very short blocks."""
_BLOCK_S: Final = 12.0
"""Block time of Bittensor, assumed until the chain's own is known."""


class NotCommitted(Exception):
    """The chain refuses this validator's commitment."""


@dataclass(frozen=True, slots=True)
class SubnetView:
    """The chain state that weights are decided by, read at one time."""

    info: ChainInfo
    status: EpochStatus
    """`block` is the newest block. The other fields may be as old as the last final block."""
    subnet: Subnet
    """The subnet at the last final block."""
    neuron: Neuron | None
    """This validator in `subnet`; None if it is not registered."""


class SubnetChain:
    """The chain for one validator on one subnet. `sleep` is an argument for tests."""

    def __init__(
        self,
        chain: Chain,
        netuid: int,
        hotkey: str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._chain, self._netuid, self._hotkey, self._sleep = chain, netuid, hotkey, sleep
        self._info: ChainInfo | None = None

    async def info(self) -> ChainInfo:
        """The chain's constants, asked for once and kept. Raises ChainError."""
        if self._info is None:
            self._info = await self._chain.info()
        return self._info

    # ---- audits --------------------------------------------------------------------------------

    async def commit_tip(self, run: str, tip: str) -> None:
        """Commit the tip on the chain, unless it is committed already.

        Raises:
            NotCommitted: the chain refuses it.
            Unavailable: the rate limit still refuses it after `COMMIT_TRIES` blocks.
            ChainError: the chain cannot be reached.
        """
        standing = await self._chain.commitment(self._netuid, self._hotkey)
        if standing is not None and committed_tip(standing.data, run) == tip:
            return
        for _ in range(COMMIT_TRIES):
            result = await self._chain.commit(self._netuid, commitment(run, tip))
            if result.code is not TxCode.RATE_LIMITED:
                break
            await self._pause(1)
        else:
            raise Unavailable(
                f"subnet {self._netuid} takes no commitment of this hotkey yet ({result.message}): try again"
                " later"
            )
        if not result.ok:
            raise NotCommitted(
                f"subnet {self._netuid} does not take this validator's commitment ({result.message})"
            )

    async def committed_tips(self, run: str, hotkeys: Iterable[str]) -> dict[str, str]:
        """The tips that those of `hotkeys` committed for `run` that have a permit. Raises ChainError."""
        subnet = await self._chain.subnet(self._netuid)
        found: dict[str, str] = {}
        for hotkey in hotkeys:
            neuron = subnet.neuron(hotkey)
            if neuron is None or not neuron.validator_permit:
                continue
            standing = await self._chain.commitment(self._netuid, hotkey)
            tip = None if standing is None else committed_tip(standing.data, run)
            if tip is not None:
                found[hotkey] = tip
        return found

    async def hash_of(self, block: int) -> str:
        """The hash of a block once it is final. Retries chain errors; the caller sets the deadline."""
        while True:
            try:
                final = await self._chain.finalized()
                if final.number >= block:
                    return await self._chain.block_hash(block)
                await self._pause(block - final.number)
            except ChainError as error:
                # Any of them may pass: also `BadInput` from a lagging node, or a runtime upgrade.
                log.warning("the chain does not tell the hash of block %d: %s", block, error)
                await self._pause(1)

    async def is_final(self, block: int) -> bool:
        """Whether a block is final by now. Raises ChainError."""
        return (await self._chain.finalized()).number >= block

    async def _pause(self, blocks: int) -> None:
        block_time_s = _BLOCK_S if self._info is None else self._info.block_time_s
        await self._sleep(max(_MIN_PAUSE_S, blocks * block_time_s))

    # ---- weights: every call raises ChainError ---------------------------------------------------

    async def view(self) -> SubnetView:
        """Read the state that weights are decided by."""
        info = await self.info()
        subnet = await self._chain.subnet(self._netuid)
        status = await self._chain.epoch_status(self._netuid)
        # The head last: a write sent after this view cannot land in a block up to it.
        head = await self._chain.head()
        now = replace(status, block=max(head.number, status.block))
        return SubnetView(info, now, subnet, subnet.neuron(self._hotkey))

    async def send(self, row: Mapping[int, int], version_key: int) -> TxResult:
        """Set weights. `row` holds u16 weights by uid."""
        return await self._chain.set_weights(self._netuid, row, version_key)

    async def row(self) -> Mapping[int, int] | None:
        """This validator's weights in force, u16 by uid; None if there are none."""
        rows = await self._chain.weights(self._netuid)
        return next((row.weights for row in rows if row.hotkey == self._hotkey), None)
