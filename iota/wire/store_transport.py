"""Transport by the object store: presigned PUT, announcement by the orchestrator, presigned GET."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Final

from cachetools import LRUCache

from iota.client.orchestrator import OrchestratorUnreachable, UntrustedAnswer
from iota.client.run_objects import RunObjects, UrlSource, is_outage
from iota.objects import FrameKey
from iota.protocol.events import Delivered, FrameReady, Plan, Reroute
from iota.protocol.frames import FrameNotice
from iota.protocol.problems import Problem
from iota.store import ObjectExists, ObjectTooLarge, StoreError
from iota.store.transfer import ObjectClient
from iota.wire.arrivals import Arrivals
from iota.wire.expectation import EarliestStep, Expects
from iota.wire.transport import IncomingFrame, OutgoingFrame, TransferRefused, TransportError, Unreachable

TRANSFER_S: Final = 120.0
"""How long one try to store or fetch a frame may take."""
_MAX_URLS: Final = 1 << 14
"""URLs that are kept: those of several steps' frames."""
_MAX_ARRIVED: Final = 16
"""Fetched frames that may wait for the reader, since they take memory; fetching pauses beyond."""


class StoreTransport:
    """A `Transport` that stores frames under their names, and therefore ignores `to` and `sender`."""

    def __init__(self, run: str, urls: UrlSource, store: ObjectClient) -> None:
        self._run, self._objects = run, RunObjects(urls, store)
        self._urls: LRUCache[str, str] = LRUCache(_MAX_URLS)
        """Presigned URLs that came with events, by key. Each serves one try, since it may have expired."""
        self._arrivals = Arrivals(_MAX_ARRIVED)

    def on_event(self, delivered: Delivered) -> None:
        if isinstance(delivered.event, Plan | Reroute | FrameReady):
            self._urls.update(delivered.urls)

    def listen_for(self, expects: Expects, earliest_step: EarliestStep) -> None:
        pass  # nobody can push a frame here

    def expectations_changed(self) -> None:
        pass

    async def send(self, frame: OutgoingFrame, to: str) -> FrameNotice:
        return await self.store(frame)

    async def store(self, frame: OutgoingFrame) -> FrameNotice:
        key = str(FrameKey(self._run, frame.notice.name))
        with _as_transport_errors():
            await self._objects.put(key, frame.data, self._urls.pop(key, None), within_s=TRANSFER_S)
        return frame.notice

    async def fetch(self, notice: FrameNotice, sender: str) -> None:
        key = str(FrameKey(self._run, notice.name))
        with _as_transport_errors():
            url = self._urls.pop(key, None)
            data = await self._objects.get(key, notice.size, url, within_s=TRANSFER_S)
        await self._arrivals.put(notice, sender, data)

    def incoming(self) -> AsyncIterator[IncomingFrame]:
        return self._arrivals.incoming()

    async def close(self) -> None:
        self._arrivals.close()


@contextmanager
def _as_transport_errors() -> Iterator[None]:
    """Map errors of the store and the orchestrator to those of `Transport`."""
    try:
        yield
    except (StoreError, Problem, OrchestratorUnreachable, UntrustedAnswer) as error:
        text = f"{type(error).__name__}: {error}"
        if is_outage(error):
            raise Unreachable(text) from error
        if isinstance(error, Problem | ObjectTooLarge | ObjectExists):
            raise TransferRefused(text) from error
        raise TransportError(text) from error
