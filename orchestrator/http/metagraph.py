"""The subnet's members as last read from a finalized block, kept through chain outages and restarts."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from iota.chain import BadInput, ChainError, Subnet, Unavailable
from iota.console.watch import Watch
from iota.files import write_whole
from iota.protocol.messages import Role
from iota.protocol.problems import Problem, ProblemType, Standing

METAGRAPH_EVERY_S: Final = 60.0
"""Seconds between two regular reads: registrations are rare, and a read is a large request."""
STALE_S: Final = 3600.0
"""Seconds for which the last read stays in use during an outage of the chain; then requests are refused."""
REREAD_EVERY_S: Final = 3.0
"""Minimum seconds between two reads because of unknown hotkeys, which anyone can make up."""
_REREAD_S: Final = 10.0
"""Longest wait of a request for such a read."""
_TIMEOUT_S: Final = 60.0
"""Of one read of the chain."""
_log = logging.getLogger(__name__)


class SubnetSource(Protocol):
    """The part of `iota.chain.Chain` that membership needs."""

    async def subnet(self, netuid: int) -> Subnet:
        """The subnet at the newest finalized block. Raises ChainError."""


class _LastRead(BaseModel):
    """The result of one read, in the form of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    """Digest of the chain's address and the netuid, so that another subnet's file is not used."""
    block: int
    read_at: float
    """Unix seconds."""
    permits: dict[str, bool]
    """hotkey -> whether it may validate."""


class Metagraph:
    """The subnet's hotkeys as last read; validators also need the chain's permit.

    Only finalized blocks are read, so a registration in a block that is reverted later never counts. While
    the chain cannot be read, the last read stays in use for `STALE_S` seconds; after that, calls raise
    UNAVAILABLE. Before the first read no hotkey is a member, and `reread` raises UNAVAILABLE.

    Args:
        chain: the chain that the subnet is read from.
        netuid: the subnet's number.
        file: where the last read is kept, for a restart during an outage of the chain.
        source: the chain's address, which the file is bound to.
        now: clock, Unix seconds.
        scale: factor on the pauses of `follow`, for tests.
    """

    def __init__(
        self,
        chain: SubnetSource,
        netuid: int,
        file: Path | None = None,
        source: str = "",
        now: Callable[[], float] = time.time,
        scale: float = 1.0,
    ) -> None:
        self._chain, self._netuid, self._file, self._now = chain, netuid, file, now
        # A digest, since a chain's address may hold an access token.
        self._source = hashlib.sha256(f"{source} {netuid}".encode()).hexdigest()
        self._watch = Watch("the subnet's members", scale=scale)
        self._disk = Watch("keeping the subnet's members on disk", scale=scale)
        self._last: _LastRead | None = None
        self._rereading = asyncio.Lock()
        self._reread_at = float("-inf")
        self._read_at = float("-inf")
        """Monotonic seconds of the last reread, and of the last read of any kind."""

    def __call__(self, hotkey: str, role: Role) -> bool:
        """Whether the hotkey may have the role.

        Raises:
            Problem: UNAVAILABLE where the last read is older than `STALE_S`.
        """
        if self._last is None:
            return False
        if self._now() - self._last.read_at > STALE_S:
            raise Problem(
                ProblemType.UNAVAILABLE,
                f"the subnet could not be read for {STALE_S / 60:.0f} minutes, so no hotkey can be checked",
                retry_after=METAGRAPH_EVERY_S,
            )
        permit = self._last.permits.get(hotkey)
        return permit is not None and (permit or role is Role.MINER)

    def standing(self, hotkey: str) -> Standing:
        """Why a hotkey does not have a role that it asked for."""
        registered = self._last is not None and hotkey in self._last.permits
        return Standing.NO_PERMIT if registered else Standing.NOT_REGISTERED

    async def start(self) -> None:
        """Read the metagraph, or load the file where the chain does not answer; `follow` reads it later.

        Raises:
            BadInput: there is no such subnet.
        """
        try:
            await self.refresh(_REREAD_S)
        except BadInput:
            raise
        except ChainError as error:
            self._last = self._from_file()
            self._failed(error, 0.0)

    async def refresh(self, timeout_s: float = _TIMEOUT_S) -> None:
        """Read the metagraph once, and keep it in the file. Raises ChainError."""
        try:
            async with asyncio.timeout(timeout_s):
                subnet = await self._chain.subnet(self._netuid)
        except TimeoutError:
            raise Unavailable(f"no answer within {timeout_s:g} s") from None
        permits = {neuron.hotkey: neuron.validator_permit for neuron in subnet.neurons}
        self._last = _LastRead(
            source=self._source, block=subnet.block.number, read_at=self._now(), permits=permits
        )
        self._read_at = time.monotonic()
        self._watch.passed()
        if self._file is not None:
            data = self._last.model_dump_json().encode()
            try:
                await asyncio.to_thread(write_whole, self._file, data, durable=True)
            except OSError as error:
                self._disk.failed(error, METAGRAPH_EVERY_S)
            else:
                self._disk.passed()

    async def reread(self) -> None:
        """Read the metagraph because of a hotkey that is not on it: it may have registered since.

        Concurrent callers share one read, and such reads are at least `REREAD_EVERY_S` apart.

        Raises:
            Problem: RATE_LIMITED too soon after the last one; UNAVAILABLE where the chain does not answer.
        """
        asked = time.monotonic()
        try:
            async with asyncio.timeout(_REREAD_S), self._rereading:
                if self._read_at > asked:
                    return
                wait_s = self._reread_at + REREAD_EVERY_S - time.monotonic()
                if wait_s > 0 and self._last is None:
                    raise Problem(
                        ProblemType.UNAVAILABLE, "the subnet has not been read yet", retry_after=wait_s
                    )
                if wait_s > 0:
                    raise Problem(
                        ProblemType.RATE_LIMITED,
                        "this hotkey is not on the subnet as it was read just now",
                        retry_after=wait_s,
                    )
                self._reread_at = time.monotonic()
                await self.refresh()
        except (ChainError, TimeoutError) as error:
            if isinstance(error, ChainError):
                self._failed(error, REREAD_EVERY_S)
            raise Problem(
                ProblemType.UNAVAILABLE,
                "the subnet cannot be read now, and this hotkey was not on it before",
                retry_after=REREAD_EVERY_S,
            ) from None

    async def follow(self, every_s: float = METAGRAPH_EVERY_S) -> None:
        """Refresh every `every_s` seconds until cancelled, and sooner after a failure."""
        while True:
            pause_s = every_s
            try:
                await self.refresh()
            except ChainError as error:
                pause_s = self._failed(error)
            await asyncio.sleep(pause_s)

    def _failed(self, error: ChainError, next_s: float | None = None) -> float:
        """Say that a read failed, and how old the last one is; returns the pause before the next."""
        if self._last is not None:
            age_s = self._now() - self._last.read_at
            error = Unavailable(f"{error}; that of block {self._last.block} stands, {age_s:.0f} s old")
        return self._watch.failed(error, next_s)

    def _from_file(self) -> _LastRead | None:
        """The last read of this subnet, if it is on file and not too old."""
        if self._file is None or not self._file.is_file():
            return None
        try:
            last = _LastRead.model_validate_json(self._file.read_bytes())
        except ValidationError:
            _log.warning("%s holds no metagraph and is not used", self._file)
            return None
        fresh = 0 <= self._now() - last.read_at <= STALE_S
        return last if fresh and last.source == self._source else None
