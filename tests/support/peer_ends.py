"""Miners' ends of the transport between peers: real links and doors on loopback, with made-up plans."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from blake3 import blake3

from iota.codec.shapes import payload_size
from iota.http import Reach
from iota.identity.contacts import sign_contact
from iota.identity.keys import Hotkey
from iota.identity.peer_certificate import make_certificate
from iota.protocol.contacts import CONTACT_S, Contact, SignedContact
from iota.protocol.events import Delivered
from iota.protocol.frames import FrameName, FrameNotice
from iota.spec import RunSpec
from iota.wire.arrivals import Arrivals
from iota.wire.chooser import Chooser
from iota.wire.direct_link import DirectLink
from iota.wire.direct_server import serve_frames
from iota.wire.door import Doorway
from iota.wire.expectation import EarliestStep, Expectation, Expects
from iota.wire.frame import FrameError, FrameHeader, decode_frame, encode_frame, make_header
from iota.wire.link import Link, LinkKind
from iota.wire.peer_transport import PeerTransport
from iota.wire.transport import IncomingFrame, OutgoingFrame, Transport
from tests.support.small_spec import small_spec

SPEC = small_spec()


class ShelfTransport:
    """The way by the store, without one: what was stored lies on a shelf that all ends share."""

    def __init__(self, shelf: dict[FrameName, bytes]) -> None:
        self.shelf = shelf
        self._arrivals = Arrivals(0)

    def listen_for(self, expects: Expects, earliest_step: EarliestStep) -> None:
        pass

    def expectations_changed(self) -> None:
        pass

    def on_event(self, delivered: Delivered) -> None:
        pass

    async def send(self, frame: OutgoingFrame, to: str) -> FrameNotice:
        return await self.store(frame)

    async def store(self, frame: OutgoingFrame) -> FrameNotice:
        self.shelf[frame.notice.name] = bytes(frame.data)
        return frame.notice

    async def fetch(self, notice: FrameNotice, sender: str) -> None:
        await self._arrivals.put(notice, sender, self.shelf[notice.name])

    def incoming(self) -> AsyncIterator[IncomingFrame]:
        return self._arrivals.incoming()

    async def close(self) -> None:
        self._arrivals.close()


class OpenBook:
    """A book of contacts that tests write."""

    def __init__(self) -> None:
        self.contacts: dict[str, Contact] = {}
        self.doubted: list[str] = []

    def get(self, hotkey: str) -> Contact | None:
        return self.contacts.get(hotkey)

    def knows(self, hotkey: str) -> bool:
        return hotkey in self.contacts

    def want(self, hotkeys: object) -> None:
        pass

    def doubt(self, hotkey: str, pause_s: float = 0.0) -> None:
        self.doubted.append(hotkey)

    async def wait_for(self, hotkey: str, within_s: float) -> Contact | None:
        return self.contacts.get(hotkey)


@dataclass
class End:
    """One miner's end. It keeps what it expects, in memory."""

    hotkey: Hotkey
    book: OpenBook
    doorway: Doorway
    chooser: Chooser
    transport: Transport
    port: int
    expects: Callable[[FrameHeader], Expectation]
    link: DirectLink
    certificate: str | None = None
    kept: dict[FrameName, bytes] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)

    def knows(self, other: End) -> None:
        """Write the other end's address into this one's book."""
        contact = contact_of(other.hotkey, other.port).contact
        contact = contact.model_copy(update={"certificate": other.certificate})
        self.book.contacts[other.hotkey.ss58] = contact

    async def forget_connections(self) -> None:
        """Close the connections to others that are kept open."""
        await self.link.close()

    async def keep_all(self) -> None:
        """Check and keep what comes, as a miner does."""
        async for arrived in self.transport.incoming():
            try:
                frame = decode_frame(arrived.data, SPEC)
            except FrameError as error:
                self.refused.append(str(error))
                arrived.settle(str(error))
            else:
                self.kept[frame.header.name] = bytes(arrived.data)
                arrived.settle(None)


def contact_of(hotkey: Hotkey, port: int, run: str = SPEC.id) -> SignedContact:
    """The contact of a miner that listens at a loopback port."""
    now = time.time()
    contact = Contact(
        run=run,
        hotkey=hotkey.ss58,
        version=int(now * 1000),
        expires=now + CONTACT_S,
        direct=(f"127.0.0.1:{port}",),
    )
    return sign_contact(contact, hotkey)


def signed_frame(
    name: FrameName, sender: Hotkey, receiver: Hotkey, fill: int = 1, spec: RunSpec = SPEC
) -> OutgoingFrame:
    """A frame of `spec` whose payload is filled with one byte."""
    payload = bytes([fill]) * payload_size(spec)
    header = make_header(spec, name, blake3(payload).hexdigest(), sender.ss58, receiver.ss58)
    data = encode_frame(header, payload, sender.sign)
    return OutgoingFrame(FrameNotice(name=name, digest=blake3(data).hexdigest(), size=len(data)), data)


@asynccontextmanager
async def open_end(
    seed: int,
    shelf: dict[FrameName, bytes],
    *,
    expects: Callable[[FrameHeader], Expectation] = lambda header: Expectation.EXPECTED,
    tls: bool = False,
    spec: RunSpec = SPEC,
) -> AsyncIterator[End]:
    """An end that listens on loopback and keeps what it expects."""
    context, certificate = make_certificate() if tls else (None, None)
    link = DirectLink(Reach(anywhere=True))
    hotkey, book, doorway, chooser = Hotkey.from_seed(bytes([seed]) * 32), OpenBook(), Doorway(), Chooser()
    links: dict[LinkKind, Link] = {LinkKind.DIRECT: link}
    async with serve_frames(doorway, payload_size(spec), "127.0.0.1", 0, context) as port:
        transport = PeerTransport(spec, hotkey.sign, ShelfTransport(shelf), links, book, doorway, chooser)
        end = End(hotkey, book, doorway, chooser, transport, port, expects, link, certificate)
        transport.listen_for(lambda header: end.expects(header), lambda: (0, 0))
        keeping = asyncio.create_task(end.keep_all())
        try:
            yield end
        finally:
            await transport.close()
            await keeping
            await link.close()
