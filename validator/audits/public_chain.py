"""What anyone can check on the chain: the hash of a draw's block, and the committed chain of a link."""

from __future__ import annotations

from dataclasses import dataclass

from iota.chain import Chain
from iota.protocol.events import EpochClose
from validator.core.links import committed_tip, verify_link


@dataclass(frozen=True)
class PublicChain:
    """The chain, read without a hotkey. Every method raises ChainError."""

    chain: Chain
    netuid: int
    run: str

    async def block_hash(self, seal: EpochClose) -> str | None:
        """Hash of the block that a seal names; None while it is not final."""
        if (await self.chain.finalized()).number < seal.block:
            return None
        return await self.chain.block_hash(seal.block)

    async def link_fault(self, seal: EpochClose, validator: str, link: str) -> str | None:
        """Why a link is not of the chain that its validator had committed at the seal's block, or None."""
        standing = await self.chain.commitment(self.netuid, validator, seal.block)
        tip = None if standing is None else committed_tip(standing.data, self.run)
        if tip is None:
            return f"it had committed no chain of links for this run at block {seal.block}"
        if not verify_link(link, seal.epoch, tip):
            return "its link is not of the chain that it committed"
        return None

    async def committed(self, seal: EpochClose) -> list[str]:
        """The validators with a permit that had committed links for this run at the seal's block."""
        subnet = await self.chain.subnet(self.netuid)
        found = []
        for neuron in subnet.neurons:
            if neuron.validator_permit:
                standing = await self.chain.commitment(self.netuid, neuron.hotkey, seal.block)
                if standing is not None and committed_tip(standing.data, self.run) is not None:
                    found.append(neuron.hotkey)
        return sorted(found)
