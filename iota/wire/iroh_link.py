"""The iroh link: frames over QUIC, through NATs, by a native library that runs in a process of its own.

A process that dies or hangs fails the frames that are under way and is started again with the same key; the
miner goes on.
"""

from __future__ import annotations

import asyncio
import importlib.util
import ipaddress
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import psutil
from pydantic import ValidationError

from iota.http import UploadPace
from iota.protocol.contacts import MAX_DIRECT, Contact, IrohContact
from iota.settings.urls import split_host_port
from iota.wire.frame import FrameError, head_size
from iota.wire.iroh_arrivals import IrohArrivals, read_answer
from iota.wire.iroh_child import DidNotStart, IrohChild
from iota.wire.iroh_options import MAX_NAMED, IrohOptions
from iota.wire.iroh_pipe import Kind
from iota.wire.iroh_status import IrohStatus, NatKind, nat_kind, seen_addresses
from iota.wire.link import Door, DoorRefused, LinkKind
from iota.wire.transport import OutgoingFrame, TransferRefused, TransportError, Unreachable

_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 30.0
_STABLE_S: Final = 60.0
"""A process that lived so long starts a new series of pauses."""
_MAX_PUSHES: Final = 128
"""Frames under way out: the process holds 1 MiB of each."""
_MAX_DIALLED: Final = 4 * MAX_DIRECT
"""Addresses at which one key is dialled: those of the member that names it, and of others that do."""
_MAX_SEEN: Final = 3
"""Addresses in a contact that peers have named: false ones must not push out the others."""

_log = logging.getLogger(__name__)


class LinkUnavailable(Exception):
    """There is no iroh link on this machine; the message says why, and what can be done."""


def anywhere(_host: str) -> bool:
    """Any address may be dialled."""
    return True


class IrohLink:
    """A `Link`. `open` makes one."""

    kind = LinkKind.IROH

    def __init__(
        self,
        secret: bytes,
        door: Door,
        is_member_key: Callable[[str], bool],
        options: IrohOptions,
        may_dial: Callable[[str], bool],
        pace: UploadPace,
    ) -> None:
        self._pace = pace
        self._secret, self._options, self._may_dial = secret, options, may_dial
        self._arrivals = IrohArrivals(door, is_member_key)
        self._child: IrohChild | None = None
        self._restarts = 0
        self._last_end: str | None = None
        self._bound: tuple[str, ...] = ()
        """Where the last process listened: the next one tries to be found there too."""
        self._prepared: dict[str, dict[str, Any]] = {}
        """By hotkey."""
        self._addresses: list[str] = []
        self._own_hosts: set[str] = set()
        self._room = asyncio.Semaphore(_MAX_PUSHES)
        self._named: dict[str, set[str]] = {}
        self._first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done once the first process is ready, or says why not."""
        self._running: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        secret: bytes,
        door: Door,
        is_member_key: Callable[[str], bool],
        options: IrohOptions | None = None,
        *,
        may_dial: Callable[[str], bool] = anywhere,
        pace: UploadPace | None = None,
    ) -> IrohLink:
        """Start the process, and return once its endpoint is bound.

        Args:
            secret: the network key (`iota.wire.network_key`).
            door: where frames that come are brought.
            is_member_key: whether a key (hex) stands in the contact of a current member that this miner
                knows. It is asked when a connection comes, and for each frame.
            may_dial: whether an IP address that a contact names may be dialled.
            pace: at which frames are sent.

        Raises LinkUnavailable.
        """
        if importlib.util.find_spec("iroh") is None:
            raise LinkUnavailable(
                "the package iroh is not installed: it has wheels for Linux (x86-64, ARM64; glibc 2.28),"
                " macOS (ARM64) and Windows (x86-64); frames go by other links"
            )
        link = cls(secret, door, is_member_key, options or IrohOptions(), may_dial, pace or UploadPace(None))
        link._running = asyncio.create_task(link._run())
        try:
            await link._first
        except BaseException:
            await link.close()
            raise
        return link

    @property
    def status(self) -> IrohStatus:
        """What the endpoint knows of its network and its peers; a second old at most."""
        endpoint = self._child.status if self._child else None
        here = {each.address for found in psutil.net_if_addrs().values() for each in found}
        given = [*self._options.public, *self._addresses]
        given = [each for each in given if split_host_port(each)[0] not in here]
        nat = nat_kind(endpoint, given) if endpoint else NatKind.UNKNOWN
        return IrohStatus(endpoint=endpoint, nat=nat, restarts=self._restarts, last_end=self._last_end)

    @property
    def pid(self) -> int | None:
        """The process's id, while it runs."""
        return self._child.pid if self._child else None

    def contact(self) -> IrohContact | None:
        """How this endpoint is reached now, for the member's contact; None while the process does not run."""
        endpoint = self._child.status if self._child else None
        if endpoint is None:
            return None
        given = [*self._options.public, *self._addresses]
        hosts = self._own_hosts | {split_host_port(each)[0] for each in given}
        seen = seen_addresses(endpoint, hosts)[:_MAX_SEEN]
        known = dict.fromkeys([*given, *seen, *endpoint.addresses])
        addresses = [each for each in known if _is_listed(each)]
        relay = self._own_relay(endpoint.relay)
        return IrohContact(key=endpoint.key, relay=relay, addresses=tuple(addresses[:MAX_DIRECT]))

    def add_addresses(self, addresses: Sequence[str]) -> None:
        """Note further addresses (`IP:PORT`) at which this endpoint is reached, such as a router's."""
        self._addresses = list(dict.fromkeys([*self._addresses, *addresses]))[-MAX_DIRECT:]
        if self._child:
            self._child.tell(Kind.ADDRESSES, self._addresses)

    def add_own_host(self, host: str) -> None:
        """Note an IP address at which others see this machine, such as the one that the orchestrator sees."""
        self._own_hosts.add(host)

    def reaches(self, peer: Contact) -> bool:
        to = self._to(peer)
        if to is None:
            return False
        endpoint = self._child.status if self._child else None
        if endpoint is not None and endpoint.key == to["key"]:
            return False
        connected = endpoint is not None and any(each.key == to["key"] for each in endpoint.peers)
        return connected or bool(to["addresses"] or to["relay"])

    def prepare(self, peer: Contact) -> None:
        """Keep a connection to a neighbour from now on, dialled ahead; again with each of its contacts.

        One to a key that it had before is kept no longer.

        Both neighbours do this at once, which is what opens the way through two NATs. It ends ten minutes
        after the last call.
        """
        if self.reaches(peer) and (to := self._to(peer)):
            before = self._prepared.pop(peer.hotkey, None)
            kept = {to["key"], *(each["to"]["key"] for each in self._prepared.values())}
            self._prepared[peer.hotkey] = {"to": to, "until": peer.expires}
            left = before["to"]["key"] if before is not None else to["key"]
            if self._child:
                # One member has one connection: else it would take those of all others, key by key.
                leave = None if left in kept else left
                self._child.tell(Kind.PREPARE, {**self._with_others(to), "leave": leave})

    async def push(self, frame: OutgoingFrame, peer: Contact) -> bytes:
        to = self._to(peer)
        if to is None:
            raise Unreachable("the peer names no iroh endpoint")
        try:
            head = head_size(frame.data)
        except FrameError as error:
            raise TransferRefused(str(error)) from error
        async with self._room:
            child = self._child
            if child is None or not child.ready.is_set():
                raise Unreachable(f"the iroh process is being started again: {self._last_end}")
            answer = await child.push(self._with_others(to), head, frame.data, self._pace)
        try:
            read = read_answer(answer)
        except ValueError as error:
            raise TransportError("the peer gives no answer to a frame") from error
        if isinstance(read, DoorRefused):
            raise TransferRefused(str(read)) from read
        return read

    async def close(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._child = None
        await self._arrivals.close()

    async def _run(self) -> None:
        pause = _FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            why = await self._one_life()
            if not self._first.done():
                at = ", ".join(self._options.bind)
                self._first.set_exception(LinkUnavailable(f"iroh cannot be used here, at UDP {at}: {why}"))
                return
            if time.monotonic() - began > _STABLE_S:
                pause = _FIRST_PAUSE_S
            # One line for a series of ends.
            say = _log.warning if pause == _FIRST_PAUSE_S else _log.debug
            say("the iroh process has ended and is started again; frames go by other links: %s", why)
            self._restarts, self._last_end = self._restarts + 1, why[:500]
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)

    async def _one_life(self) -> str:
        """Start a process and serve it until it ends; returns why."""
        options = replace(self._options, bind=self._bound or self._options.bind)
        try:
            child = await IrohChild.start(self._secret, options, self._arrivals, self._note)
        except OSError as error:
            return f"the process cannot be started: {error}"
        self._child = child
        ready = asyncio.create_task(self._when_ready(child))
        try:
            return await child.run()
        except DidNotStart as error:
            self._bound = ()
            return str(error)
        except Exception as error:  # noqa: BLE001 - the edge of what the process can do to the miner
            _log.exception("the iroh process was not understood")
            return type(error).__name__
        finally:
            self._child = None
            ready.cancel()

    async def _when_ready(self, child: IrohChild) -> None:
        await child.ready.wait()
        if child.status is not None:
            self._bound = child.status.bound
        now = time.time()
        self._prepared = {who: each for who, each in self._prepared.items() if each["until"] > now}
        for each in self._prepared.values():
            child.tell(Kind.PREPARE, {**self._with_others(each["to"]), "leave": None})
        if self._addresses:
            child.tell(Kind.ADDRESSES, self._addresses)
        if not self._first.done():
            self._first.set_result(None)

    def _to(self, peer: Contact) -> dict[str, Any] | None:
        """Where to dial: IP addresses that are permitted, and a relay only if it is one of our own."""
        if peer.iroh is None:
            return None
        relay = self._own_relay(peer.iroh.relay)
        addresses = [each for each in peer.iroh.addresses if self._is_dialled(each)]
        return {"key": peer.iroh.key, "relay": relay, "addresses": addresses}

    def _with_others(self, to: dict[str, Any]) -> dict[str, Any]:
        """Where to dial, with the addresses that other members name for the same key.

        Anybody may name another's key. Only who holds it answers, at whichever address.
        """
        now, addresses = time.time(), [*to["addresses"]]
        for each in self._prepared.values():
            if each["until"] > now and each["to"]["key"] == to["key"]:
                addresses += each["to"]["addresses"]
        return {**to, "addresses": list(dict.fromkeys(addresses))[:_MAX_DIALLED]}

    def _own_relay(self, url: str | None) -> str | None:
        """The relay of the operator's own that `url` names; None where it is none of them."""
        own = (each.rstrip("/") for each in self._options.relays)
        return next((each for each in own if each == (url or "").rstrip("/")), None)

    def _is_dialled(self, address: str) -> bool:
        host, port = split_host_port(address)
        try:
            ip = ipaddress.ip_address(host)
        except ValueError:
            return False  # a name: nobody makes this miner look names up
        return 0 < port < 65536 and self._may_dial(str(ip))

    def _note(self, case: str, peer: str, text: str) -> None:
        named = self._named.setdefault(case, set())
        if peer not in named and len(named) < MAX_NAMED:
            named.add(peer)
            # A neighbour may dial before its contact is here, and does so again.
            level = logging.INFO if case == "stranger" else logging.WARNING
            _log.log(level, "iroh: %s: %s (%s)", case, text, peer or "here")


def _is_listed(address: str) -> bool:
    """Whether an address has the form of those in contacts."""
    try:
        IrohContact(key="0" * 64, addresses=(address,))
    except ValidationError:
        return False
    return True
