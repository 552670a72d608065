"""Who may take part: a file of hotkeys, or the subnet's metagraph."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Final, Protocol

from iota.chain import ChainError, Subnet
from iota.protocol.keys import is_address
from iota.protocol.messages import Role

METAGRAPH_EVERY_S: Final = 60.0
_TIMEOUT_S: Final = 60.0
_log = logging.getLogger(__name__)


class AllowList:
    """Hotkeys in a text file, one a line; `#` begins a comment. Any of them may have any role."""

    def __init__(self, hotkeys: frozenset[str]) -> None:
        self._hotkeys = hotkeys

    def __call__(self, hotkey: str, role: Role) -> bool:
        return hotkey in self._hotkeys

    @classmethod
    def load(cls, path: Path) -> AllowList:
        """Raises ValueError for a file that cannot be read or a line that is no hotkey."""
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the allow-list {path} cannot be read: {error}") from None
        lines = [line.partition("#")[0].strip() for line in text.splitlines()]
        for number, line in enumerate(lines, 1):
            if line and not is_address(line):
                raise ValueError(f"{path} line {number}: {line[:80]!r} is no hotkey address; give one a line")
        return cls(frozenset(line for line in lines if line))


class SubnetSource(Protocol):
    """The part of a chain that membership needs."""

    async def subnet(self, netuid: int) -> Subnet: ...


class Metagraph:
    """The subnet's neurons as last read; validators need the chain's permit.

    While the chain cannot be read, the last metagraph stands; before the first, nobody is a member.
    """

    def __init__(self, chain: SubnetSource, netuid: int) -> None:
        self._chain, self._netuid = chain, netuid
        self._permits: dict[str, bool] = {}

    def __call__(self, hotkey: str, role: Role) -> bool:
        permit = self._permits.get(hotkey)
        return permit is not None and (permit or role is Role.MINER)

    async def refresh(self) -> None:
        """Read the metagraph once. Raises ChainError or TimeoutError."""
        async with asyncio.timeout(_TIMEOUT_S):
            subnet = await self._chain.subnet(self._netuid)
        self._permits = {neuron.hotkey: neuron.validator_permit for neuron in subnet.neurons}

    async def follow(self, every_s: float = METAGRAPH_EVERY_S) -> None:
        """Refresh until cancelled."""
        while True:
            try:
                await self.refresh()
            except (ChainError, TimeoutError) as error:
                _log.warning("the metagraph cannot be read: %s", error or "no answer in time")
            await asyncio.sleep(every_s)
