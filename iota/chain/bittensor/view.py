"""Reads the chain's state at one block."""

from __future__ import annotations

import re
from typing import Any, Final, Self

from bittensor import storage

from iota.chain.bittensor.connection import Session
from iota.chain.bittensor.faults import drifted
from iota.chain.chain import Block, EpochStatus
from iota.chain.errors import BadInput
from iota.chain.inputs import check_netuid

RAO_PER_TAO: Final = 10**9
_BLOCKS: Final = 1 << 32
"""Block numbers are u32."""
_SLOWEST_S: Final = 3600.0
"""Bound on a block time, from which waits are computed."""
_HASH = re.compile(r"0x[0-9a-f]{64}")


class BlockView:
    """The state after one block, so that several reads are consistent."""

    def __init__(self, session: Session, block: Block) -> None:
        self._session = session
        self.block = block

    @classmethod
    async def at(cls, session: Session, number: int) -> Self:
        """The view at block `number` of the node's current chain."""
        block_hash = await hash_of(session, number)
        stamp = await session.substrate.query(*storage.Timestamp.Now[:2], [], block_hash)
        return cls(session, Block(number, block_hash, int(stamp or 0) / 1000))

    @classmethod
    async def head(cls, session: Session) -> Self:
        """The view at the newest block."""
        return await cls.at(session, int(await session.substrate.block_number()))

    @classmethod
    async def finalized(cls, session: Session) -> Self:
        """The view at the newest finalized block, which cannot change."""
        return await cls.at(session, int(await session.substrate.finalized_block_number()))

    async def query(self, item: Any, *keys: Any) -> Any:
        """The value of a storage item, or its default."""
        return await self._session.substrate.query(item[0], item[1], list(keys), self.block.hash)

    async def entries(self, item: Any, *keys: Any) -> list[tuple[Any, Any]]:
        """All entries of a storage map under the first keys."""
        pairs = await self._session.substrate.query_map(item[0], item[1], list(keys), self.block.hash)
        return [(key, value) for key, value in pairs]

    async def batch(self, item: Any, keys: list[list[Any]]) -> list[Any]:
        """Values of a storage map, in the order of `keys`."""
        return list(await self._session.substrate.query_batch(item[0], item[1], keys, self.block.hash))

    async def call(self, method: Any, *params: Any) -> Any:
        """The result of a runtime API's method."""
        return await self._session.substrate.runtime_call(method[0], method[1], list(params), self.block.hash)

    async def number(self, item: Any, *keys: Any) -> int:
        """An integer storage item; 0 where it has neither value nor default."""
        return int(await self.query(item, *keys) or 0)

    async def require_subnet(self, netuid: int) -> None:
        """Raises BadInput for an unknown subnet."""
        if not await self.query(storage.SubtensorModule.NetworksAdded, check_netuid(netuid)):
            raise BadInput(f"there is no subnet {netuid} on {self._session.node.endpoint}")

    async def uid(self, netuid: int, hotkey: str) -> int | None:
        """The hotkey's uid; None where it is not registered."""
        found = await self.query(storage.SubtensorModule.Uids, netuid, hotkey)
        return None if found is None else int(found)

    async def epoch(self, netuid: int) -> EpochStatus:
        """The subnet's position between two epochs, by the chain's own schedule.

        Raises:
            BadInput: unknown subnet, or one without epochs.
        """
        await self.require_subnet(netuid)
        status = await self._session.client.at(self.block.number)
        found = await status.read("epoch_status", netuid=netuid)
        if not found["tempo"] or found["next_epoch_start_block"] is None:
            raise BadInput(f"subnet {netuid} runs no epochs: its tempo is 0")
        return EpochStatus(
            netuid=netuid,
            block=self.block.number,
            tempo=found["tempo"],
            index=found["epoch_index"],
            last_epoch_block=found["last_epoch_block"],
            next_epoch_block=found["next_epoch_start_block"],
            seconds_remaining=float(found["seconds_remaining"]),
        )


async def hash_of(session: Session, number: int) -> str:
    """The hash of a block, 32 bytes in hex; raises Incompatible for any other answer."""
    if not 0 <= number < _BLOCKS:
        raise drifted(session.node, f"{number} is no block number")
    found = await session.substrate.block_hash(number)
    if not isinstance(found, str) or not _HASH.fullmatch(found):
        raise drifted(session.node, f"{str(found)[:80]!r} is no block hash")
    return found


async def block_time_of(session: Session) -> float:
    """Seconds between two blocks; raises Incompatible for a value out of bounds."""
    found = float(await session.substrate.block_time())
    if not 0 < found <= _SLOWEST_S:
        raise drifted(session.node, f"{found} s is no time between two blocks")
    return found
