"""The subnet's members as last read from finalized blocks, kept through outages of the chain and restarts."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from iota.chain import ChainError, Subnet
from iota.files import write_whole
from iota.protocol.messages import Role
from iota.protocol.problems import Problem, ProblemType

METAGRAPH_EVERY_S: Final = 60.0
STALE_S: Final = 3600.0
"""Seconds for which the members stand while the chain cannot be read; then requests are refused."""
LOOK_EVERY_S: Final = 3.0
"""Minimum seconds between two reads for hotkeys that the metagraph did not name, over all that ask."""
_LOOK_S: Final = 10.0
_TIMEOUT_S: Final = 60.0
_log = logging.getLogger(__name__)


class SubnetSource(Protocol):
    """The part of a chain that membership needs."""

    async def subnet(self, netuid: int) -> Subnet: ...


class _Seen(BaseModel):
    """The result of one read, as it is kept in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    """Fingerprint of the chain and subnet, so that a file of another one is not taken."""
    block: int
    read_at: float
    """Unix seconds."""
    permits: dict[str, bool]
    """By hotkey, whether it may validate."""


class Metagraph:
    """The subnet's neurons as last read; validators need the chain's permit.

    A read is pinned to a finalized block, so nobody is a member by a block that vanishes again. While the
    chain cannot be read, the last one stands for `STALE_S` seconds, with a warning at each try; then
    questions are refused as UNAVAILABLE. Before the first read nobody is a member.

    Args:
        chain: where the subnet is read.
        netuid: which subnet.
        file: keeps the last read, so that a restart during an outage of the chain stops nobody.
        source: what `file` belongs to besides the subnet, such as the chain's address.
        now: Unix seconds.
    """

    def __init__(
        self,
        chain: SubnetSource,
        netuid: int,
        file: Path | None = None,
        source: str = "",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._chain, self._netuid, self._file, self._now = chain, netuid, file, now
        # A digest, since a chain's address may hold an access token.
        self._source = hashlib.sha256(f"{source} {netuid}".encode()).hexdigest()
        self._seen: _Seen | None = None
        self._looking = asyncio.Lock()
        self._looked = float("-inf")
        self._read = float("-inf")

    def __call__(self, hotkey: str, role: Role) -> bool:
        """Whether the hotkey may have the role.

        Raises:
            Problem: UNAVAILABLE, where the last read is too old to tell.
        """
        if self._seen is None:
            return False
        if self._now() - self._seen.read_at > STALE_S:
            raise Problem(
                ProblemType.UNAVAILABLE,
                f"the subnet could not be read for {STALE_S / 60:.0f} minutes, so nobody is known",
                retry_after=METAGRAPH_EVERY_S,
            )
        permit = self._seen.permits.get(hotkey)
        return permit is not None and (permit or role is Role.MINER)

    async def start(self) -> None:
        """Read the metagraph, or take the one on file where the chain does not answer.

        Raises:
            ChainError, TimeoutError: no answer, and nothing fresh enough on file.
        """
        try:
            await self.refresh()
        except (ChainError, TimeoutError) as error:
            self._seen = self._from_file()
            if self._seen is None:
                raise
            self._warn(error)

    async def refresh(self) -> None:
        """Read the metagraph once. Raises ChainError or TimeoutError."""
        async with asyncio.timeout(_TIMEOUT_S):
            subnet = await self._chain.subnet(self._netuid)
        permits = {neuron.hotkey: neuron.validator_permit for neuron in subnet.neurons}
        self._seen = _Seen(
            source=self._source, block=subnet.block.number, read_at=self._now(), permits=permits
        )
        self._read = time.monotonic()
        if self._file is not None:
            seen = self._seen.model_dump_json().encode()
            await asyncio.to_thread(write_whole, self._file, seen, durable=True)

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
            self._warn(error)
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
                self._warn(error)
            await asyncio.sleep(every_s)

    def _warn(self, error: Exception) -> None:
        stands = ""
        if self._seen is not None:
            age_s = self._now() - self._seen.read_at
            stands = f"; that of block {self._seen.block} stands, {age_s:.0f} s old"
        _log.warning("the metagraph cannot be read: %s%s", error or "no answer in time", stands)

    def _from_file(self) -> _Seen | None:
        """The last read of this subnet, if it is on file and not too old."""
        if self._file is None or not self._file.is_file():
            return None
        try:
            seen = _Seen.model_validate_json(self._file.read_bytes())
        except ValidationError:
            _log.warning("%s holds no metagraph and is not used", self._file)
            return None
        fresh = 0 <= self._now() - seen.read_at <= STALE_S
        return seen if fresh and seen.source == self._source else None
