"""The links of a miner's process: servers, clients, its own contact, and the book of those of its peers."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

import psutil

from iota.client.contact_book import ContactBook
from iota.client.orchestrator import OrchestratorClient
from iota.codec.shapes import payload_size
from iota.http import Reach, is_loopback
from iota.identity.contacts import sign_contact
from iota.identity.keys import Hotkey
from iota.identity.peer_certificate import make_certificate
from iota.protocol.contacts import CONTACT_S, MAX_DIRECT, Contact, SignedContact
from iota.settings import MinerSettings, Ways
from iota.settings.urls import split_host_port
from iota.spec import RunSpec
from iota.wire.chooser import Chooser
from iota.wire.direct_link import DirectLink
from iota.wire.direct_server import serve_frames
from iota.wire.door import Doorway
from iota.wire.link import Link, LinkKind
from iota.wire.peer_transport import PeerTransport
from iota.wire.transport import Transport
from iota.wire.upload_pace import UploadPace

log = logging.getLogger(__name__)

_ANY: Final = ("0.0.0.0", "::")


@dataclass
class MinerLinks:
    """What all lives of a process share: links stay open while a replica joins again."""

    spec: RunSpec
    hotkey: Hotkey
    book: ContactBook
    links: dict[LinkKind, Link] = field(default_factory=dict)
    doorway: Doorway = field(default_factory=Doorway)
    chooser: Chooser = field(default_factory=Chooser)

    def transport(self, by_store: Transport) -> Transport:
        """The transport of one life, which has joined. It falls back on `by_store`."""
        self.book.joined()
        return PeerTransport(
            self.spec, self.hotkey.sign, by_store, self.links, self.book, self.doorway, self.chooser
        )


@asynccontextmanager
async def open_links(
    settings: MinerSettings, spec: RunSpec, hotkey: Hotkey, client: OrchestratorClient, reach: Reach
) -> AsyncIterator[MinerLinks | None]:
    """The links that the settings want, open while the context is; None where they want the store alone.

    Raises PortUnavailable.
    """
    if settings.transport is Ways.STORE:
        yield None
        return
    direct: list[str] = []
    certificate: str | None = None

    def own() -> SignedContact:
        now = time.time()
        contact = Contact(
            run=spec.id,
            hotkey=hotkey.ss58,
            version=int(now * 1000),
            expires=now + CONTACT_S,
            direct=tuple(direct),
            certificate=certificate,
        )
        return sign_contact(contact, hotkey)

    book = ContactBook(spec.id, client.contacts, own)
    made = MinerLinks(spec, hotkey, book)
    async with AsyncExitStack() as stack:
        if settings.transport in (Ways.AUTO, Ways.DIRECT):
            host, port = split_host_port(settings.listen)
            context, certificate = make_certificate() if settings.tls else (None, None)
            server = serve_frames(made.doorway, payload_size(spec), host, port, context)
            bound = await stack.enter_async_context(server)
            near = is_loopback(urlsplit(settings.orchestrator).hostname)
            direct += addresses(host, bound, settings.public_address, loopback=near)
            link = made.links[LinkKind.DIRECT] = DirectLink(reach, UploadPace(settings.max_upload))
            stack.push_async_callback(link.close)
            log.info("peers may reach this miner at %s", ", ".join(direct) or "no address")
        task = asyncio.create_task(book.run())
        try:
            yield made
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


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
