"""Who may take part: a file of hotkeys, or the subnet's metagraph."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Protocol

from iota.chain import ChainError, Subnet
from iota.protocol.keys import is_address
from iota.protocol.messages import Role
from iota.protocol.problems import Problem, ProblemType

METAGRAPH_EVERY_S: Final = 60.0
LOOK_EVERY_S: Final = 3.0
"""The least time between two looks for hotkeys that the metagraph did not name, whoever asks."""
_LOOK_S: Final = 10.0
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
        self._looking = asyncio.Lock()
        self._looked = float("-inf")
        self._read = float("-inf")

    def __call__(self, hotkey: str, role: Role) -> bool:
        permit = self._permits.get(hotkey)
        return permit is not None and (permit or role is Role.MINER)

    async def refresh(self) -> None:
        """Read the metagraph once. Raises ChainError or TimeoutError."""
        async with asyncio.timeout(_TIMEOUT_S):
            subnet = await self._chain.subnet(self._netuid)
        self._permits = {neuron.hotkey: neuron.validator_permit for neuron in subnet.neurons}
        self._read = time.monotonic()

    async def look_again(self) -> None:
        """Read the metagraph for a hotkey that it does not name: it may have registered since.

        Those who ask at the same time share one read, and reads are `LOOK_EVERY_S` apart.

        Raises:
            Problem: RATE_LIMITED too soon after the last look; UNAVAILABLE where the chain does not answer.
        """
        asked = time.monotonic()
        try:
            async with asyncio.timeout(_LOOK_S), self._looking:
                if self._read > asked:
                    return
                wait_s = self._looked + LOOK_EVERY_S - time.monotonic()
                if wait_s > 0:
                    raise Problem(
                        ProblemType.RATE_LIMITED,
                        "this hotkey is not on the subnet as it was read just now",
                        retry_after=wait_s,
                    )
                self._looked = time.monotonic()
                await self.refresh()
        except (ChainError, TimeoutError) as error:
            _log.warning("the metagraph cannot be read: %s", error or "no answer in time")
            raise Problem(
                ProblemType.UNAVAILABLE,
                "the subnet cannot be read now, and this hotkey was not on it before",
                retry_after=LOOK_EVERY_S,
            ) from None

    async def follow(self, every_s: float = METAGRAPH_EVERY_S) -> None:
        """Refresh until cancelled."""
        while True:
            try:
                await self.refresh()
            except (ChainError, TimeoutError) as error:
                _log.warning("the metagraph cannot be read: %s", error or "no answer in time")
            await asyncio.sleep(every_s)


class Admission:
    """`is_member(hotkey, role)`, asked once more after `look_again` where the answer was no."""

    def __init__(
        self,
        is_member: Callable[[str, Role], bool],
        look_again: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._is_member, self._look_again = is_member, look_again

    async def allows(self, hotkey: str, *roles: Role) -> bool:
        """Whether the hotkey may have one of the roles. Raises Problem when that cannot be said now."""
        if any(self._is_member(hotkey, role) for role in roles):
            return True
        if self._look_again is None:
            return False
        await self._look_again()
        return any(self._is_member(hotkey, role) for role in roles)
