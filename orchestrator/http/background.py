"""Background tasks: polling the chain's head and the store, deadlines, silent members, deletions."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Final, Protocol

from iota.chain import Block, ChainError, Unavailable
from iota.console.watch import Watch
from iota.data.manifest import MANIFEST_NAME
from iota.objects import manifest_folder
from iota.protocol.problems import Problem
from iota.retry import Backoff
from iota.store import ObjectMissing, ObjectStore, StoreError
from orchestrator.coordinator import Coordinator, Entry, Lost, Tick
from orchestrator.http.metrics import Metrics
from orchestrator.http.presence import Presence
from orchestrator.http.recorder import Recorder

HEAD_TIMEOUT_S: Final = 30.0
_MIN_TICK_S: Final = 0.05
"""Shortest pause between two looks at the deadlines: they cause at most 20 journal entries a second."""
_DELETE_TRIES: Final = 5
_DELETE_BACKOFF: Final = Backoff(first_s=1.0)
_DELETE_TIMEOUT_S: Final = 300.0
"""Of one prefix, which may hold all frames of an epoch."""
_STORE_POLL_S: Final = 30.0
_log = logging.getLogger(__name__)


class HeadSource(Protocol):
    """The part of `iota.chain.Chain` that the orchestrator needs."""

    async def head(self) -> Block:
        """The newest block. Raises ChainError."""


class Ticker:
    """Records a Tick for each new block and for each deadline that passes."""

    def __init__(
        self,
        chain: HeadSource,
        coordinator: Coordinator,
        recorder: Recorder,
        metrics: Metrics,
        poll_s: float,
        scale: float = 1.0,
    ) -> None:
        """`poll_s` is the pause between two reads of the head; `scale` is that of `Watch`."""
        self._chain = chain
        self._coordinator = coordinator
        self._recorder = recorder
        self._metrics = metrics
        self._poll_s = poll_s
        self._watch = Watch("the chain's newest block", scale=scale)
        self._head: tuple[int, str] | None = None
        self._changed = asyncio.Event()
        recorder.after.append(self._changed.set)

    def observe(self, entry: Entry) -> None:
        """Take the newest block from an applied Tick: after a replay, the journal's last one."""
        if isinstance(entry, Tick):
            self._head = (entry.block, entry.block_hash)

    @property
    def head_known(self) -> bool:
        """Whether any block is known yet; before that the server is not ready."""
        return self._head is not None

    async def poll_head(self) -> None:
        """Poll the chain's head until cancelled. During an outage the last known block stays in use."""
        while True:
            try:
                block = await self._read_head()
            except ChainError as error:
                self._metrics.failure("chain")
                self._watch.failed(error, self._poll_s)
            else:
                self._watch.passed()
                if self._head is None or block.number > self._head[0]:
                    self._head = (block.number, block.hash)
                    await self._tick()
            await asyncio.sleep(self._poll_s)

    async def _read_head(self) -> Block:
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                return await self._chain.head()
        except TimeoutError:
            raise Unavailable(f"no answer within {HEAD_TIMEOUT_S:g} s") from None

    async def watch_deadlines(self) -> None:
        """Record a Tick at the coordinator's next deadline, until cancelled."""
        while True:
            self._changed.clear()
            due = self._coordinator.next_deadline()
            wait_s = None if due is None else max(_MIN_TICK_S, due - time.time())
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                await self._tick()
            else:
                await asyncio.sleep(_MIN_TICK_S)

    async def _tick(self) -> None:
        if self._head is None:
            return
        number, digest = self._head
        with suppress(
            Problem
        ):  # a full disk, which the recorder says; the next block or deadline tries again
            await self._recorder.record(Tick(at=self._recorder.stamp(), block=number, block_hash=digest))


async def watch_silence(
    coordinator: Coordinator, recorder: Recorder, presence: Presence, silence_s: float
) -> None:
    """Record members as lost that sent no request for `silence_s` seconds, until cancelled.

    A run that has ended loses nobody: its members stop of themselves.
    """
    while not coordinator.ended:
        for hotkey, member in list(coordinator.members.items()):
            if not member.live or not presence.overdue(hotkey, time.monotonic()):
                continue
            async with recorder.lock_for(hotkey):
                if not member.live or not presence.overdue(hotkey, time.monotonic()):
                    continue
                with suppress(Problem):  # as for a tick
                    await recorder.record(Lost(at=recorder.stamp(), hotkey=hotkey))
        await asyncio.sleep(silence_s / 5)


async def watch_store(store: ObjectStore, data: str, scale: float = 1.0) -> None:
    """Say it when the store does not answer, or lacks the run's data set with id `data`, until cancelled.

    Nothing is held up by it: the store is the nodes', who wait for it themselves. `scale` is that of `Watch`.

    Raises:
        ConditionStands: the condition's end has come.
    """
    watch = Watch("the run's store", scale=scale)
    key = f"{manifest_folder(data)}/{MANIFEST_NAME}"
    while True:
        pause_s = _STORE_POLL_S * scale
        try:
            if await store.size(key) is None:
                raise ObjectMissing(f"it has no {key}, which `iota data prepare` stores last")
        except StoreError as error:
            pause_s = watch.failed(error)
        else:
            watch.passed()
        await asyncio.sleep(pause_s)


class Deletions:
    """Deletes the objects of closed epochs from the store. After several failures it waits for a restart."""

    def __init__(self, coordinator: Coordinator, store: ObjectStore, metrics: Metrics) -> None:
        self._coordinator = coordinator
        self._store = store
        self._metrics = metrics
        self._due = asyncio.Event()

    def wake(self) -> None:
        """Make `run` look for new deletions."""
        self._due.set()

    async def run(self) -> None:
        """Delete until cancelled; first all closed epochs, since an earlier process may have failed."""
        self._coordinator.take_deletions()
        prefixes = self._coordinator.closed_prefixes()
        while True:
            for prefix in prefixes:
                await self._delete(prefix)
            await self._due.wait()
            self._due.clear()
            prefixes = self._coordinator.take_deletions()

    async def _delete(self, prefix: str) -> None:
        for failures in range(1, _DELETE_TRIES + 1):
            try:
                async with asyncio.timeout(_DELETE_TIMEOUT_S):
                    await self._store.delete_prefix(prefix)
                return
            except (StoreError, TimeoutError) as error:
                self._metrics.failure("store")
                _log.warning("deleting %s failed: %s", prefix, error or "no answer in time")
                await asyncio.sleep(_DELETE_BACKOFF.pause_s(failures))
        _log.error("%s was not deleted; the next start tries again", prefix)
