"""The links of a miner's process: servers, clients, its own contact, and the book of those of its peers."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import psutil

from iota.client.contact_book import PUBLISH_S, ContactBook
from iota.client.node_clients import NodeClients
from iota.client.orchestrator import OrchestratorUnreachable, UntrustedAnswer
from iota.codec.shapes import payload_size
from iota.http import AddressRefused, is_loopback
from iota.identity.contacts import sign_contact
from iota.identity.keys import Hotkey
from iota.identity.peer_certificate import make_certificate
from iota.protocol.contacts import CONTACT_S, MAX_DIRECT, Contact, SignedContact
from iota.protocol.problems import Problem
from iota.settings import MinerSettings, Ways
from iota.settings.urls import split_host_port
from iota.spec import RunSpec
from iota.wire.chooser import Chooser
from iota.wire.direct_link import DirectLink
from iota.wire.direct_server import serve_frames
from iota.wire.door import Doorway
from iota.wire.iroh_link import IrohLink, LinkUnavailable
from iota.wire.iroh_options import IrohOptions
from iota.wire.link import Link, LinkKind
from iota.wire.network_key import load_or_create
from iota.wire.peer_transport import PeerTransport
from iota.wire.transport import Transport, TransportError
from miner.reachability import Reached, line_found, meaning, measure_line, nat_meaning

log = logging.getLogger(__name__)

_ANY: Final = ("0.0.0.0", "::")
_NAT_S: Final = 5.0
"""Pause between two looks at what peers see of this miner."""
_TIMED: Final = 2
"""Peers whose round trips are measured and logged."""


@dataclass
class MinerLinks:
    """What all lives of a process share: links stay open while a replica joins again."""

    settings: MinerSettings
    spec: RunSpec
    hotkey: Hotkey
    clients: NodeClients
    links: dict[LinkKind, Link] = field(default_factory=dict)
    doorway: Doorway = field(default_factory=Doorway)
    chooser: Chooser = field(default_factory=Chooser)
    direct: DirectLink | None = None
    iroh: IrohLink | None = None
    _addresses: tuple[str, ...] = ()
    """Of the TCP server."""
    _certificate: str | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _timed: int = 0

    def __post_init__(self) -> None:
        self.book = ContactBook(self.spec.id, self.clients.orchestrator.contacts, self.contact, self._met)

    def transport(self, by_store: Transport) -> Transport:
        """The transport of one life, which has joined. It falls back on `by_store`."""
        self.book.joined()
        return PeerTransport(
            self.spec, self.hotkey.sign, by_store, self.links, self.book, self.doorway, self.chooser
        )

    def contact(self) -> SignedContact:
        """This miner's contact, as it is reached now."""
        now = time.time()
        contact = Contact(
            run=self.spec.id,
            hotkey=self.hotkey.ss58,
            version=int(now * 1000),
            expires=now + CONTACT_S,
            direct=self._addresses,
            certificate=self._certificate,
            iroh=self.iroh.contact() if self.iroh is not None else None,
        )
        return sign_contact(contact, self.hotkey)

    async def open(self, stack: AsyncExitStack) -> None:
        """Open what the settings want; `stack` closes it. Raises PortUnavailable, ValueError."""
        ways = self.settings.transport
        if ways in (Ways.AUTO, Ways.DIRECT):
            await self._open_direct(stack)
        if ways in (Ways.AUTO, Ways.IROH):
            await self._open_iroh(stack)
        self._begin(self.book.run())
        self._begin(self._tell())
        stack.push_async_callback(self._end_tasks)

    async def _open_direct(self, stack: AsyncExitStack) -> None:
        settings, (host, port) = self.settings, split_host_port(self.settings.listen)
        tls, self._certificate = make_certificate() if settings.tls else (None, None)
        server = serve_frames(self.doorway, payload_size(self.spec), host, port, tls)
        bound = await stack.enter_async_context(server)
        near = is_loopback(urlsplit(settings.orchestrator).hostname)
        self._addresses = tuple(addresses(host, bound, settings.public_address, loopback=near))
        self.direct = self.links[LinkKind.DIRECT] = DirectLink(self.clients.reach, self.clients.pace)
        stack.push_async_callback(self.direct.close)

    async def _open_iroh(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        options = IrohOptions(
            bind=(settings.listen,),
            relays=(settings.relay,) if settings.relay else (),
            public=tuple(filter(_is_ip, [settings.public_address or ""])),
        )
        try:
            self.iroh = await IrohLink.open(
                load_or_create(settings.data_dir),
                self.doorway,
                self.book.is_key,
                options,
                may_dial=self._may_dial,
                pace=self.clients.pace,
            )
        except LinkUnavailable as error:
            if settings.transport is Ways.IROH:
                raise ValueError(f"--transport iroh: {error}") from error
            log.warning("there is no iroh link, and frames go by others: %s", error)
        else:
            self.links[LinkKind.IROH] = self.iroh
            stack.push_async_callback(self.iroh.close)

    def _may_dial(self, ip: str) -> bool:
        try:
            self.clients.reach.check(ip)
        except AddressRefused:
            return False
        return True

    async def _tell(self) -> None:
        """Measure the line, and say what this miner's place means for its frames."""
        client = self.clients.orchestrator
        try:
            seen = await self._seen()
            self._came_from(seen)
            line = await measure_line(client, seen)
        except (Problem, OrchestratorUnreachable, UntrustedAnswer) as error:
            log.warning("the line to the orchestrator could not be measured: %s", error)
            return
        log.info("%s", line_found(line))
        reached = Reached(
            self._addresses, self.settings.public_address, self._udp_port(), self.settings.relay
        )
        for sentence in meaning(line, reached):
            log.info("%s", sentence)
        if self.iroh is not None:
            await self._tell_nat(self.iroh, reached.udp_port)

    async def _seen(self) -> str:
        """The IP address that requests come from, before the join if that is allowed: peers need it."""
        try:
            return (await self.clients.orchestrator.echo(0, 0)).address
        except Problem:  # a worker's key, or one that was registered just now, is known once it is a member's
            await self.book.until_joined()
            return (await self.clients.orchestrator.echo(0, 0)).address

    def _came_from(self, seen: str) -> None:
        """Publish the address that the orchestrator sees as one of the iroh endpoint's."""
        if self.iroh is None:
            return
        self.iroh.add_own_host(seen)
        if port := self._udp_port():  # most NATs keep a port that is free: two behind such ones need no third
            self.iroh.add_addresses([f"[{seen}]:{port}" if ":" in seen else f"{seen}:{port}"])
        self.book.renew()

    def _udp_port(self) -> int | None:
        found = self.iroh.contact() if self.iroh is not None else None
        return split_host_port(found.addresses[0])[1] if found is not None and found.addresses else None

    async def _tell_nat(self, link: IrohLink, port: int | None) -> None:
        """Say what kind of NAT is before this miner, and publish where peers see it; both may change.

        A single peer can say something else each second: each sentence stands in the log once, and pauses
        between publications double, since a contact that changes has its neighbours measure all links anew.
        """
        said: set[str] = set()
        published, renew_at, pause = link.contact(), 0.0, _NAT_S
        while True:
            now = time.monotonic()
            if (found := link.contact()) != published and now >= renew_at:
                published, renew_at, pause = found, now + pause, min(2 * pause, PUBLISH_S)
                self.book.renew()
            sentence = nat_meaning(link.status.nat, port)
            if sentence is not None and sentence not in said:
                log.info("%s", sentence)
                said.add(sentence)
            await asyncio.sleep(_NAT_S)

    def _met(self, contact: Contact) -> None:
        """A neighbour's contact is new, or leads elsewhere than before."""
        self.chooser.forget(contact.hotkey)
        if self.iroh is not None:
            self.iroh.prepare(contact)
        if self.direct is not None and self._timed < _TIMED and self.direct.reaches(contact):
            self._timed += 1
            self._begin(self._time(self.direct, contact))

    async def _time(self, link: DirectLink, contact: Contact) -> None:
        try:
            passed = await link.round_trip(contact)
        except TransportError as error:
            log.info("peer %s does not answer at its address: %s", contact.hotkey, error)
        else:
            log.info("round trip to peer %s: %.0f ms", contact.hotkey, 1e3 * passed)

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("a fault of this build: frames go on by the ways that are open", exc_info=error)

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def open_links(
    settings: MinerSettings, spec: RunSpec, hotkey: Hotkey, clients: NodeClients
) -> AsyncIterator[MinerLinks | None]:
    """The links that the settings want, open while the context is; None where they want the store alone.

    Raises:
        PortUnavailable: --listen names a port that is in use.
        ValueError: there is no iroh link here, and no other was wanted.
    """
    for flag in _idle_flags(settings):
        log.warning("%s does nothing with --transport %s", flag, settings.transport)
    if settings.transport is Ways.STORE:
        log.info(
            "frames go by the object store alone, and this miner takes no connections (--transport store)"
        )
        yield None
        return
    made = MinerLinks(settings, spec, hotkey, clients)
    async with AsyncExitStack() as stack:
        await made.open(stack)
        yield made


def _idle_flags(settings: MinerSettings) -> list[str]:
    """Flags that were given and mean nothing to the chosen links."""
    ways = settings.transport
    given = {
        "--tls": settings.tls and ways not in (Ways.AUTO, Ways.DIRECT),
        "--relay": settings.relay is not None and ways not in (Ways.AUTO, Ways.IROH),
        "--public-address": settings.public_address is not None and ways is Ways.STORE,
        "--listen": settings.listen != MinerSettings.listen and ways is Ways.STORE,
    }
    return [flag for flag, idle in given.items() if idle]


def addresses(host: str, port: int, public: str | None, *, loopback: bool) -> list[str]:
    """Where peers may reach a server that listens at `host` and `port`: `public` first, then interfaces.

    Addresses of loopback only with `loopback`, for a swarm on one machine.
    """
    if host not in _ANY:
        found = [host]
    else:
        interfaces = (a.address for each in psutil.net_if_addrs().values() for a in each)
        found = [ip for ip in interfaces if _is_useful(ip, of_6=":" in host, loopback=loopback)]
    named = [f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip in found]
    return list(dict.fromkeys([*([public] if public else []), *named]))[:MAX_DIRECT]


def _is_useful(text: str, *, of_6: bool, loopback: bool) -> bool:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:  # a MAC address, or one of a link with its scope
        return False
    return (ip.version == 6) == of_6 and not ip.is_link_local and (loopback or not ip.is_loopback)


def _is_ip(address: str) -> bool:
    """Whether `HOST:PORT` has an IP address and no name."""
    try:
        ipaddress.ip_address(split_host_port(address)[0])
    except ValueError:
        return False
    return True
