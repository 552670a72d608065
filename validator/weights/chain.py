"""The weight setter's dealings with the chain: one look at everything it decides by, one write, one row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from iota.chain import Chain, ChainInfo, EpochStatus, Neuron, Subnet, TxResult
from validator.weights.plan import WeightPlan


@dataclass(frozen=True, slots=True)
class View:
    """The chain as it was seen in one look."""

    info: ChainInfo
    status: EpochStatus
    """Its block is the newest one; what it says of epochs may be as old as the last final block."""
    subnet: Subnet
    """At a final block."""
    neuron: Neuron | None
    """This validator's own."""


class WeightChain:
    """One validator on one subnet. Every call raises ChainError."""

    def __init__(self, chain: Chain, netuid: int, hotkey: str) -> None:
        self._chain, self._netuid, self._hotkey = chain, netuid, hotkey
        self._info: ChainInfo | None = None

    async def look(self) -> View:
        if self._info is None:
            self._info = await self._chain.info()
        subnet = await self._chain.subnet(self._netuid)
        status = await self._chain.epoch_status(self._netuid)
        # Read last: nothing that is sent after this look can land in a block up to it.
        head = await self._chain.head()
        now = replace(status, block=max(head.number, status.block))
        return View(self._info, now, subnet, subnet.neuron(self._hotkey))

    async def send(self, plan: WeightPlan) -> TxResult:
        return await self._chain.set_weights(self._netuid, plan.row, plan.version_key)

    async def row(self) -> Mapping[int, int] | None:
        """This validator's weights that are in force."""
        rows = await self._chain.weights(self._netuid)
        return next((row.weights for row in rows if row.hotkey == self._hotkey), None)
