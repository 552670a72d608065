"""One validator's calls to the chain: its committed tip, block hashes for draws, and its weights."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
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
_MIN_PAUSE_S: Final = 0.05
_BLOCK_S: Final = 12.0
"""Time of a block until the chain's own is known."""


class NotCommitted(ValueError):
    """The chain does not take this validator's commitment."""


@dataclass(frozen=True, slots=True)
class View:
    """All that weights are decided by, as the chain showed it at one time."""

    info: ChainInfo
    status: EpochStatus
    """Its block is the newest one; what it says of epochs may be as old as the last final block."""
    subnet: Subnet
    """At a final block."""
    neuron: Neuron | None
    """This validator's own."""


class SubnetChain:
    """One validator on one subnet."""

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
        """What does not change of the chain; asked for once. Raises ChainError."""
        if self._info is None:
            self._info = await self._chain.info()
        return self._info

    # ---- audits --------------------------------------------------------------------------------

    async def commit_tip(self, run: str, tip: str) -> None:
        """Put the tip on the chain unless it stands there already.

        Raises:
            NotCommitted: the chain refuses it, with its reason.
            Unavailable: it came too soon after others.
            ChainError: the chain cannot be reached.
        """
        standing = await self._chain.commitment(self._netuid, self._hotkey)
        if standing is not None and committed_tip(standing.data, run) == tip:
            return
        result: TxResult | None = None
        for _ in range(COMMIT_TRIES):
            result = await self._chain.commit(self._netuid, commitment(run, tip))
            if result.ok:
                return
            if result.code is not TxCode.RATE_LIMITED:
                break
            await self._pause(1)
        assert result is not None
        if result.code is TxCode.RATE_LIMITED:
            raise Unavailable(
                f"subnet {self._netuid} takes no commitment of this hotkey yet ({result.message}): try again"
                " later"
            )
        raise NotCommitted(
            f"subnet {self._netuid} does not take this validator's commitment ({result.message}):"
            " register its hotkey with `iota-validator register`"
        )

    async def hash_of(self, block: int) -> str:
        """The hash of a block once it is final. It has no deadline of its own; the caller sets one."""
        while True:
            try:
                final = await self._chain.finalized()
                if final.number >= block:
                    return await self._chain.block_hash(block)
                await self._pause(block - final.number)
            except ChainError as error:
                # Also `BadInput` of a node that is behind the one asked before, and the drift of an upgrade.
                log.warning("the chain does not tell the hash of block %d: %s", block, error)
                await self._pause(1)

    async def _pause(self, blocks: int) -> None:
        block_time_s = _BLOCK_S if self._info is None else self._info.block_time_s
        await self._sleep(max(_MIN_PAUSE_S, blocks * block_time_s))

    # ---- weights: every call raises ChainError ---------------------------------------------------

    async def view(self) -> View:
        info = await self.info()
        subnet = await self._chain.subnet(self._netuid)
        status = await self._chain.epoch_status(self._netuid)
        # Read last: nothing that is sent after this view can land in a block up to it.
        head = await self._chain.head()
        now = replace(status, block=max(head.number, status.block))
        return View(info, now, subnet, subnet.neuron(self._hotkey))

    async def send(self, row: Mapping[int, int], version_key: int) -> TxResult:
        """Set weights: u16 by uid."""
        return await self._chain.set_weights(self._netuid, row, version_key)

    async def row(self) -> Mapping[int, int] | None:
        """This validator's weights that are in force."""
        rows = await self._chain.weights(self._netuid)
        return next((row.weights for row in rows if row.hotkey == self._hotkey), None)
