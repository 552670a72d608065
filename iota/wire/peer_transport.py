"""The transport between miners: by the best link to the receiver, and by the store as a last resort.

`Chooser` decides which link is tried, for how long, and when a second one is started beside it. A frame has
arrived with the receiver's signature over its digest, or when it is in the store; the first ends the other.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from iota.client.contact_book import ContactBook
from iota.identity import signatures
from iota.identity.certificates import Verify
from iota.identity.signatures import signing_bytes
from iota.protocol.contacts import Contact
from iota.protocol.events import Delivered, EpochClose, Plan, Reroute
from iota.protocol.frames import KEPT_DOMAIN, FrameKept, FrameNotice, kept_statement
from iota.spec import RunSpec
from iota.wire.arrivals import Arrivals
from iota.wire.chooser import Choice, Chooser, Outcome, Token
from iota.wire.door import Doorway, FrameDoor, Sign
from iota.wire.expectation import EarliestStep, Expects
from iota.wire.link import DoorRefused, Link, LinkKind, Refusal
from iota.wire.transport import IncomingFrame, OutgoingFrame, Transport, TransportError
from iota.wire.troubles import Troubles

log = logging.getLogger(__name__)

LOOK_UP_S: Final = 2.0
"""How long a frame waits for its receiver's contact while that is looked up. It goes to the store then."""
UNREACHED_S: Final = 20.0
"""Pause between two look-ups of a receiver that no link reaches: it may find its address later."""
MAX_TRANSFERS: Final = 2
"""Transfers of one frame at a time."""
_MOST_SAID: Final = 300
"""Characters of an error in the log: a peer may have written it."""
_MAX_ARRIVED: Final = 16
"""Arrived frames that may wait for the reader, since they take memory."""


@dataclass(eq=False)
class _Transfer:
    """One try over one link."""

    choice: Choice
    token: Token
    task: asyncio.Task[FrameNotice]
    late_at: float | None
    """Loop time from which another link is to be tried beside it; None: it is hedged, or cannot be."""

    def is_late(self, now: float) -> bool:
        """Whether its frame may be tried over another link."""
        return self.late_at is None or now >= self.late_at


@dataclass
class PeerTransport:
    """A `Transport` over links and the store, for one life of a replica."""

    spec: RunSpec
    sign: Sign
    """This miner's signatures."""
    way_by_store: Transport
    links: Mapping[LinkKind, Link]
    book: ContactBook
    doorway: Doorway
    """Where the links' servers bring what comes in; this life's door is put there."""
    chooser: Chooser
    verify: Verify = signatures.verify
    _arrivals: Arrivals = field(default_factory=lambda: Arrivals(_MAX_ARRIVED))
    _troubles: Troubles = field(default_factory=lambda: Troubles(log))
    _sent: Counter[LinkKind] = field(default_factory=Counter)
    """Frames that have arrived since the last seal."""
    _probes: set[asyncio.Task[None]] = field(default_factory=set)
    """Probes whose frames have arrived by another link."""
    _faulty: set[LinkKind] = field(default_factory=set)
    """Links whose faults the log has named."""
    _fetched: asyncio.Task[None] | None = None
    _door: FrameDoor | None = None

    def listen_for(self, expects: Expects, earliest_step: EarliestStep) -> None:
        self.way_by_store.listen_for(expects, earliest_step)
        self._door = FrameDoor(self.spec, self.sign, expects, earliest_step, self.book.knows, self._arrivals)
        self.doorway.open(self._door)
        self._fetched = asyncio.create_task(self._pass_on_fetched())

    def expectations_changed(self) -> None:
        if self._door is not None:
            self._door.expectations_changed()

    def on_event(self, delivered: Delivered) -> None:
        self.way_by_store.on_event(delivered)
        match delivered.event:
            case Plan(share=share):
                self.book.want({who for m in share.microbatches for who in (m.before, m.after) if who})
            case EpochClose(epoch=epoch) if self._sent:
                ways = ", ".join(f"{count} by {kind}" for kind, count in self._sent.most_common())
                log.info("frames that were sent until the seal of epoch %d: %s", epoch, ways)
                self._sent.clear()
            case Reroute() as event:
                self.book.want(filter(None, (event.miner, event.before, event.after)))
            case _:
                pass

    async def send(self, frame: OutgoingFrame, to: str) -> FrameNotice:
        contact = await self.book.wait_for(to, LOOK_UP_S)
        usable = [kind for kind, link in self.links.items() if contact is not None and link.reaches(contact)]
        if not usable:
            self.book.doubt(to, UNREACHED_S)
        return await self._race(frame, to, contact, [*usable, LinkKind.STORE])

    async def store(self, frame: OutgoingFrame) -> FrameNotice:
        return await self.way_by_store.store(frame)

    async def fetch(self, notice: FrameNotice, sender: str) -> None:
        await self.way_by_store.fetch(notice, sender)

    def incoming(self) -> AsyncIterator[IncomingFrame]:
        return self._arrivals.incoming()

    async def close(self) -> None:
        for probe in self._probes:
            probe.cancel()
        if self._door is not None:
            self.doorway.close(self._door)
        await self.way_by_store.close()
        if self._fetched is not None:
            await self._fetched
        self._arrivals.close()

    async def _race(
        self, frame: OutgoingFrame, to: str, contact: Contact | None, usable: Sequence[LinkKind]
    ) -> FrameNotice:
        """Try links, two at a time, until the frame has arrived by one. Raises the store's failure."""
        loop, size = asyncio.get_running_loop(), frame.notice.size
        under_way: list[_Transfer] = []
        """In order of their starts."""
        tried: list[LinkKind] = []
        arrived: FrameNotice | None = None
        last: TransportError | None = None
        choice: Choice | None = self.chooser.choose(to, size, loop.time(), usable)
        try:
            while True:
                if choice is not None:
                    if len(under_way) == MAX_TRANSFERS:
                        await self._stop(under_way.pop(0))
                    tried.append(choice.kind)
                    under_way.append(self._start(frame, to, contact, choice))
                elif not under_way:
                    assert last is not None
                    raise last
                ended = await _first_end(under_way, loop.time())
                for transfer in ended:
                    under_way.remove(transfer)
                    error = transfer.task.exception()
                    self._note(transfer, to, error)
                    if error is None:
                        arrived = transfer.task.result()
                        self._sent[transfer.choice.kind] += 1
                    elif isinstance(error, TransportError):
                        # A peer's refusal must not end the tries that an outage of the store is worth.
                        by_store = transfer.choice.kind is LinkKind.STORE
                        last = error if by_store or last is None else last
                    else:
                        raise error
                if arrived is not None:
                    return arrived
                late = [each for each in under_way if each.is_late(loop.time())]
                choice = None
                if len(late) == len(under_way):
                    choice = self.chooser.next(to, size, loop.time(), usable, tried)
                    for each in late:
                        each.late_at = None  # it is hedged, or there is nothing to hedge it with
        finally:
            await self._call_off(under_way, to, arrived is not None)

    def _start(self, frame: OutgoingFrame, to: str, contact: Contact | None, choice: Choice) -> _Transfer:
        now = asyncio.get_running_loop().time()
        token = self.chooser.began(to, choice.kind, frame.notice.size, now)
        if choice.kind is LinkKind.STORE:
            work = self.way_by_store.send(frame, to)
        else:
            assert contact is not None
            work = self._push(frame, contact, self.links[choice.kind], choice.deadline_s)
        late_at = None if choice.hedge_after_s is None else now + choice.hedge_after_s
        return _Transfer(choice, token, asyncio.ensure_future(work), late_at)

    async def _push(self, frame: OutgoingFrame, contact: Contact, link: Link, within_s: float) -> FrameNotice:
        try:
            async with asyncio.timeout(within_s):
                signature = await link.push(frame, contact)
        except TimeoutError:
            raise TransportError(f"no acknowledgement within {within_s:.3g} s") from None
        except TransportError:
            raise
        except Exception as error:  # the edge of what a peer can reach: one frame's matter
            if link.kind not in self._faulty:
                self._faulty.add(link.kind)
                log.critical("a fault of this build in the %s link: frames go on", link.kind, exc_info=error)
            raise TransportError(f"a fault of this build: {type(error).__name__}") from None
        said = kept_statement(self.spec.id, frame.notice.name, frame.notice.digest)
        statement = signing_bytes(KEPT_DOMAIN, said)
        if not self.verify(statement, signature, contact.hotkey):
            raise TransportError("its acknowledgement is not signed by it")
        kept = FrameKept(receiver=contact.hotkey, signature=signature.hex())
        return frame.notice.model_copy(update={"kept": kept})

    def _note(self, transfer: _Transfer, to: str, error: BaseException | None) -> None:
        outcome = Outcome.ARRIVED
        if error is not None:
            cause = error.__cause__
            later = isinstance(cause, DoorRefused) and cause.why in (Refusal.LATER, Refusal.NOT_EXPECTED)
            outcome = Outcome.REFUSED_LATER if later else Outcome.FAILED
        self.chooser.ended(transfer.token, asyncio.get_running_loop().time(), outcome)
        kind = transfer.choice.kind
        if outcome is Outcome.FAILED and kind is not LinkKind.STORE:
            self.book.doubt(to)
            cause = None if error is None else error.__cause__
            # Not the error's text, in which the peer may have written another word each time.
            case = f"{type(error).__name__} {cause.why if isinstance(cause, DoorRefused) else ''}"
            what = f"{type(error).__name__}: {error}"[:_MOST_SAID]
            text = f"a frame did not reach {to} by {kind}, and goes another way: {what}"
            self._troubles.name(to, f"{kind} {case}", text)

    async def _call_off(self, under_way: Sequence[_Transfer], to: str, arrived: bool) -> None:
        """Stop the other transfers of a frame; a probe goes on, to learn of its link."""
        for transfer in under_way:
            if arrived and transfer.choice.probe:
                probe = asyncio.create_task(self._end_probe(transfer, to))
                self._probes.add(probe)
                probe.add_done_callback(self._probes.discard)
                continue
            kind = transfer.choice.kind
            if arrived and kind is not LinkKind.STORE:
                text = f"frames to {to} by {kind} may be late: one came faster by another link"
                self._troubles.name(to, f"{kind} is late", text, logging.INFO)
            await self._stop(transfer)

    async def _stop(self, transfer: _Transfer) -> None:
        transfer.task.cancel()
        await asyncio.wait([transfer.task])
        self.chooser.ended(transfer.token, asyncio.get_running_loop().time(), Outcome.CANCELLED)

    async def _end_probe(self, transfer: _Transfer, to: str) -> None:
        try:
            await asyncio.wait([transfer.task])
        except asyncio.CancelledError:
            transfer.task.cancel()
            raise
        self._note(transfer, to, transfer.task.exception())

    async def _pass_on_fetched(self) -> None:
        async for frame in self.way_by_store.incoming():
            await self._arrivals.pass_on(frame)


async def _first_end(under_way: Sequence[_Transfer], now: float) -> list[_Transfer]:
    """The transfers that have ended, once one has; empty once one that was not late is late."""
    times = [each.late_at for each in under_way if each.late_at is not None]
    pause = max(0.0, min(times) - now) if times else None
    tasks = [each.task for each in under_way]
    done, _ = await asyncio.wait(tasks, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
    return [each for each in under_way if each.task in done]
