"""Snapshots: (weights, moments) of a miner's version, asked for by report and delivered by event."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from iota.compute.errors import StateError
from iota.compute.state import StageState, load_state
from iota.objects import snapshot_bytes
from iota.protocol.events import SnapshotReady
from iota.protocol.messages import SnapshotWanted, StoredObject
from iota.protocol.receipts import Receipt
from iota.spec import RunSpec
from validator.audits.errors import Absent, Blame
from validator.audits.fetch import Fetcher

Key = tuple[int, str, int]
"""(epoch, miner, version)"""


class Snapshots:
    """Who was asked for what, since when, and what came.

    Args:
        want: says a report to the orchestrator.
        is_live: whether the orchestrator still hears from a miner.
        patience_s: how long a miner has to deliver once it was asked.
    """

    def __init__(
        self,
        spec: RunSpec,
        fetcher: Fetcher,
        want: Callable[[SnapshotWanted], None],
        is_live: Callable[[str], Awaitable[bool]],
        patience_s: float,
    ) -> None:
        self._spec, self._fetcher, self._want = spec, fetcher, want
        self._is_live, self._patience_s = is_live, patience_s
        self._asked: dict[Key, float] = {}
        self._ready: dict[Key, asyncio.Future[StoredObject]] = {}

    def ask(self, epoch: int, miner: str, version: int) -> None:
        """Ask for it now, so that it is there when its replay begins. May be repeated."""
        key = (epoch, miner, version)
        if key not in self._asked:
            self._asked[key] = time.monotonic()
            self._want(SnapshotWanted(epoch=epoch, miner=miner, version=version))
        self._ready.setdefault(key, asyncio.get_running_loop().create_future())

    def arrived(self, event: SnapshotReady) -> None:
        key = (event.epoch, event.miner, event.version)
        future = self._ready.setdefault(key, asyncio.get_running_loop().create_future())
        if not future.done():
            future.set_result(event.stored)

    def forget(self, epoch: int) -> None:
        """Drop what was asked for an epoch whose audits are over."""
        for key in [k for k in self._ready if k[0] == epoch]:
            self._ready.pop(key).cancel()
            self._asked.pop(key, None)

    async def get(self, epoch: int, miner: str, version: int, stage: int, seq: int) -> StageState:
        """The state that the miner delivers, well-formed; its digests are for the caller to compare.

        Raises:
            Blame: it delivered nothing in time, or something that is no state of its stage; `seq` is the
                receipt under audit.
            Absent: it is gone.
            Missing: the store does not have what was announced.
        """
        self.ask(epoch, miner, version)
        key = (epoch, miner, version)
        left = self._asked[key] + self._patience_s - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, left)):
                stored = await asyncio.shield(self._ready[key])
        except TimeoutError:
            if not await self._is_live(miner):
                raise Absent(f"the miner left before it delivered its weights of version {version}") from None
            raise Blame(miner, seq, f"it did not deliver its weights of version {version} in time") from None
        most = snapshot_bytes(self._spec, stage)
        if stored.size > most:
            raise Blame(
                miner, seq, f"its snapshot of version {version} has {stored.size} bytes, at most {most}"
            )
        data = await self._fetcher.stored(stored, most)
        try:
            return load_state(data, self._spec, stage)
        except StateError as error:
            raise Blame(miner, seq, f"its snapshot of version {version} is no state: {error}") from error


def check_committed(hotkey: str, state: StageState, step: Receipt, *, moments: bool) -> None:
    """Hold a snapshot against the STEP receipt that made its version.

    Raises:
        Blame: weights (or, where they are needed, moments) are not those that the receipt committed to.
    """
    committed = step.state
    if committed is None:
        raise Blame(hotkey, step.seq, "the STEP receipt commits to no state")
    if state.weights_digest != committed.weights:
        raise Blame(
            hotkey,
            step.seq,
            "the weights it delivers are not those of its STEP receipt",
            expected=committed.weights,
            found=state.weights_digest,
        )
    if moments and state.moments_digest != committed.moments:
        raise Blame(
            hotkey,
            step.seq,
            "the moments it delivers are not those of its STEP receipt",
            expected=committed.moments,
            found=state.moments_digest,
        )
