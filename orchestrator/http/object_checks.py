"""Looks at the object store before an exchange is recorded: what is there, and which frames are bad."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from typing import Final, TypeVar

from blake3 import blake3
from cachetools import LRUCache

from iota.codec.finite_payload import LARGEST_FINITE, payload_is_finite
from iota.codec.shapes import payload_shape
from iota.console.watch import Watch
from iota.objects import FrameKey
from iota.protocol.events import FrameReady
from iota.protocol.problems import Problem, ProblemType
from iota.spec import RunSpec
from iota.store import OUTAGES, ObjectStore, ObjectTooLarge, StoreError
from iota.wire.frame import FrameError, decode_frame
from orchestrator.coordinator import Coordinator, Exchanged, Finding, LookedAt, StoreAway, StoreBack
from orchestrator.http.metrics import Metrics
from orchestrator.http.recorder import Recorder
from orchestrator.http.store_reads import ANSWER_S, stored_bytes, within
from orchestrator.intake import all_announced, without

_CHECK_S: Final = 12.0
"""Deadline of all looks of an exchange: its client waits for 20 s. What was found by then is kept."""
_HEADS: Final = 64
"""Looks at sizes that are under way at once, over all exchanges: the store client's connections."""
_OF_ONE: Final = 8
"""Those of one exchange, so that a pseudo-gradient of thousands of parts delays no frame of others."""
_LARGE: Final = 8
"""Exchanges with more objects than that which are looked at at once; the others wait for their turn."""
_READS: Final = 4
"""Frames that are read at once, since they take memory."""
_KEPT: Final = 1 << 14
"""Sizes and findings that are kept, so that an exchange that is repeated is not looked at again."""
_PROBE_S: Final = 0.5
"""Pause between two looks whether the store answers: an outage is known before an op can be late by it."""
T = TypeVar("T")


class ObjectChecks:
    """Finds out which announced objects are there, and what is in frames that somebody cannot use.

    A store that does not answer is no member's fault: the exchange is refused for now, and the coordinator is
    told that the store is away, so that no deadline passes until it is back. An object that the store cannot
    give, such as one that was stored with a Content-Encoding, is not there: else its maker could stop the
    run.
    """

    def __init__(
        self, coordinator: Coordinator, store: ObjectStore, recorder: Recorder, metrics: Metrics
    ) -> None:
        self._coordinator, self._store = coordinator, store
        self._recorder, self._metrics = recorder, metrics
        self._watch = Watch("the object store, for what members announce", endless=True)
        self._sizes: LRUCache[str, int] = LRUCache(_KEPT)
        """Objects that were there: none is changed, and none deleted while its epoch is open."""
        self._findings: LRUCache[tuple[str, str, str, str | None], Finding] = LRUCache(_KEPT)
        """By key, announced digest, sender and receipted payload."""
        self._heads, self._reads = asyncio.Semaphore(_HEADS), asyncio.Semaphore(_READS)
        self._large, self._turn = asyncio.Semaphore(_LARGE), asyncio.Lock()

    async def checked(self, said: Exchanged) -> tuple[Exchanged | None, tuple[str, ...]]:
        """The entry to record, and keys of absent objects: one of each notice or report that is left out.

        None if nothing is left to record.

        Raises:
            Problem: UNAVAILABLE where the store does not answer; nothing may be recorded then.
        """
        spec = self._coordinator.spec
        wanted = {k: n for k, n in all_announced(spec, said).items() if self._sizes.get(k) != n}
        doubted = {
            event.notice.name: event
            for report in said.reports
            for event in self._coordinator.questioned(said.hotkey, report)
        }
        if not wanted and not doubted:
            return said, ()
        if self._coordinator.state.store_away_since is not None:
            raise _no_answer("it is away")
        turns, queue = asyncio.Semaphore(_OF_ONE), self._large if len(wanted) > _OF_ONE else nullcontext()
        try:
            async with asyncio.timeout(_CHECK_S), queue, asyncio.TaskGroup() as tasks:
                sizes = {key: tasks.create_task(self._size(key, turns)) for key in wanted}
                findings = {name: tasks.create_task(self._find(event)) for name, event in doubted.items()}
        except TimeoutError as error:
            raise _no_answer("it needs too long for all of the exchange's objects") from error
        except ExceptionGroup as group:
            if group.split(StoreError)[1] is not None:
                raise
            await self._note_away(group)
            raise _no_answer(str(group.exceptions[0])) from group
        left, missing = without(spec, said, {key for key in wanted if sizes[key].result() != wanted[key]})
        if left is not None and findings:
            looked = (LookedAt(name=name, found=task.result()) for name, task in findings.items())
            left = left.model_copy(update={"looked": tuple(looked)})
        return left, tuple(missing)

    async def run(self) -> None:
        """Look whether the store answers, until cancelled: members need it also where the server does not."""
        while True:
            await asyncio.sleep(_PROBE_S)
            try:
                await self._probe()
            except Problem as error:  # the journal has no room
                self._watch.failed(error, _PROBE_S)

    async def _probe(self) -> None:
        """Look once, and record a change. Raises Problem where that cannot be recorded."""
        away = self._coordinator.state.store_away_since is not None
        try:
            await within(ANSWER_S, self._store.size(f"{self._coordinator.spec.id}/probe"))
        except OUTAGES as error:
            await self._note_away(error)
        except StoreError as error:
            if away:
                self._watch.failed(error, _PROBE_S)
        else:
            if away:
                await self._recorder.record(StoreBack(at=self._recorder.stamp()))
                self._watch.passed()

    async def _size(self, key: str, turns: asyncio.Semaphore) -> int | None:
        async with turns, self._heads:
            try:
                size = await within(ANSWER_S, self._store.size(key))
            except OUTAGES:
                raise
            except StoreError:
                return None
        if size is not None:
            self._sizes[key] = size
        return size

    async def _find(self, event: FrameReady) -> Finding:
        """What the store has under the name of an announced frame."""
        notice, spec = event.notice, self._coordinator.spec
        key = str(FrameKey(spec.id, notice.name))
        output = self._coordinator.receipted(notice.name)
        known = (key, notice.digest, event.sender, output)
        if known in self._findings:
            return self._findings[known]
        async with self._reads:
            try:
                data = await stored_bytes(self._store, key, notice.size)
            except OUTAGES:
                raise
            except ObjectTooLarge:
                found = Finding.OTHER
            except StoreError:  # such as ObjectMissing
                return Finding.ABSENT
            else:
                found = await asyncio.to_thread(_examined, spec, event, data, output)
        self._findings[known] = found
        return found

    async def _note_away(self, error: Exception) -> None:
        self._metrics.failure("store")
        self._watch.failed(error, _PROBE_S)
        async with self._turn:
            if self._coordinator.state.store_away_since is None:
                await self._recorder.record(StoreAway(at=self._recorder.stamp()))


def _examined(spec: RunSpec, event: FrameReady, data: bytes, output: str | None) -> Finding:
    """What the stored bytes of an announced frame are. Blocks.

    Args:
        output: the payload that its sender receipted, if known: another one is its sender's doing, as is a
            frame of large values beside the receipt of a true result.
    """
    notice = event.notice
    if blake3(data).hexdigest() != notice.digest:
        return Finding.OTHER
    try:
        frame = decode_frame(data, spec)
    except FrameError:
        return Finding.INVALID
    if (frame.header.name, frame.header.sender) != (notice.name, event.sender):
        return Finding.INVALID
    if output not in (None, frame.header.payload):
        return Finding.INVALID
    form = (frame.payload, payload_shape(spec), spec.boundary.wire)
    if payload_is_finite(*form):
        return Finding.SOUND
    return Finding.LARGE if payload_is_finite(*form, LARGEST_FINITE) else Finding.NOT_FINITE


def _no_answer(why: str) -> Problem:
    """Nothing was recorded: the same exchange may be sent again."""
    return Problem(
        ProblemType.UNAVAILABLE,
        f"what this announces cannot be looked at, since the run's object store does not answer: {why}",
        retry_after=_PROBE_S,
    )
