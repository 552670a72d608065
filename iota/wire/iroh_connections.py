"""The connections of an iroh endpoint: dialled, taken, kept for those that were prepared, closed when idle.

Both sides of a connection push frames over it. Where both dial at once there are two, and each side uses the
newest: a peer that has restarted dials anew, while its old connection looks alive for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import iroh

from iota.http.sources import MAX_SOURCES, source_of
from iota.http.token_buckets import TokenBuckets
from iota.wire.iroh_live import Live, PeerAddress, path_of
from iota.wire.iroh_options import (
    ALPN,
    MAX_CONNECTIONS,
    MAX_HANDSHAKES,
    MAX_HANDSHAKES_OF_ONE,
    MAX_OF_ONE_KEY,
    MAX_STREAMS,
    IrohOptions,
)
from iota.wire.iroh_seen import hear_seen, tell_seen
from iota.wire.iroh_tasks import Tasks

WANTED_S: Final = 600.0
"""How long a prepared peer's connection is kept: as long as a contact is valid."""

_HANDSHAKE_S: Final = 10.0
_UPKEEP_S: Final = 1.0
_ACCEPT_BURST: Final = 20
"""Connections of one source that are taken at once."""
_ACCEPT_RATE: Final = 2.0
"""And a second after that."""
_RETRY_FROM: Final = MAX_HANDSHAKES // 4
"""Handshakes under way from which on a source must first show that its address is its own."""
_FIRST_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 30.0
_STAYS_S: Final = 10.0
"""A connection that lives so long was welcome; one that the peer closes at once is dialled more rarely."""


class NotReached(Exception):
    """There is no connection to the peer."""


@dataclass
class _Peer:
    lives: list[Live] = field(default_factory=list)
    """Newest last."""
    address: PeerAddress | None = None
    dial: asyncio.Task[None] | None = None
    dials: int = 0
    """Tries that have ended."""
    failure: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    wanted_until: float = 0.0
    dial_at: float = 0.0
    pause: float = _FIRST_PAUSE_S

    def newest(self) -> Live | None:
        return next((live for live in reversed(self.lives) if live.open), None)

    def change(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


Serve = Callable[[Live], Coroutine[Any, Any, None]]
IsMember = Callable[[str], Awaitable[bool]]
Note = Callable[[str, str, str], None]
"""Notes a case, a peer's key or address, and a text, for the miner's log."""


class Connections:
    """All connections of `endpoint`."""

    def __init__(
        self,
        endpoint: iroh.Endpoint,
        options: IrohOptions,
        tasks: Tasks,
        *,
        serve: Serve,
        is_member: IsMember,
        note: Note,
    ) -> None:
        """`serve` takes the peer's streams until the connection ends; `is_member` says whose are taken."""
        self._endpoint, self._options, self._tasks = endpoint, options, tasks
        self._serve, self._is_member, self._note = serve, is_member, note
        self._peers: dict[str, _Peer] = {}
        self._limits = TokenBuckets(_ACCEPT_RATE, _ACCEPT_BURST, MAX_SOURCES)
        self._handshakes: Counter[str] = Counter()
        """By source: connections whose peer is not yet known."""

    async def get(self, address: PeerAddress) -> Live:
        """A connection to the peer: an open one, or the first that a dial of either side makes.

        Raises NotReached.
        """
        peer = self._peers.setdefault(address.key, _Peer())
        _aim(peer, address)
        dials = peer.dials
        while True:
            if live := peer.newest():
                return live
            if peer.dials > dials:
                raise NotReached(peer.failure)
            self._start_dial(peer, address)
            await peer.changed.wait()

    def prepare(self, address: PeerAddress, leave: str | None = None) -> None:
        """Keep a connection to the peer from now on, for `WANTED_S` or until asked again; and none to the key
        `leave`, which it had before."""
        if leave is not None and (left := self._peers.get(leave)) is not None:
            left.wanted_until = 0.0
        peer = self._peers.setdefault(address.key, _Peer())
        _aim(peer, address)
        peer.wanted_until = time.monotonic() + WANTED_S
        self._keep(peer, time.monotonic())

    async def accept(self) -> None:
        """Take connections until the endpoint is closed."""
        while (incoming := await self._endpoint.accept_next()) is not None:
            try:
                await self._look_at(incoming)
            except iroh.IrohError:
                continue  # it went away

    async def keep_up(self) -> None:
        """Close what is dead or idle, and dial again those that are prepared. Never ends."""
        while True:
            await asyncio.sleep(_UPKEEP_S)
            now = time.monotonic()
            for key, peer in list(self._peers.items()):
                for live in list(peer.lives):
                    self._look_after(live, peer, now)
                self._keep(peer, now)
                if not peer.lives and peer.dial is None and peer.wanted_until < now:
                    del self._peers[key]

    def status(self) -> list[dict[str, Any]]:
        """Each connected peer with the path that is used."""
        return [
            {"key": key, "sees": live.sees, **path_of(live.connection)}
            for key, peer in self._peers.items()
            if (live := peer.newest()) is not None
        ]

    async def _look_at(self, incoming: iroh.Incoming) -> None:
        under_way = self._handshakes.total()
        if under_way >= MAX_HANDSHAKES:
            await incoming.ignore()
            return
        source = _host(await incoming.remote_addr())
        if self._handshakes[source] >= MAX_HANDSHAKES_OF_ONE:
            await incoming.ignore()
        elif under_way >= _RETRY_FROM and not await incoming.remote_addr_validated():
            await incoming.retry()
        elif not self._limits.allows(source, time.monotonic()):
            await incoming.ignore()
            self._note("dials-too-often", source, "more connections than are taken from one address")
        else:
            self._handshakes[source] += 1
            self._tasks.start(self._take(incoming, source))

    async def _take(self, incoming: iroh.Incoming, source: str) -> None:
        try:
            async with asyncio.timeout(_HANDSHAKE_S):
                connection = await (await incoming.accept()).connect()
                key = connection.remote_id().to_bytes().hex()
                if await self._is_member(key):
                    self._add(connection, key, dialled=False)
                else:
                    connection.close(1, b"not a member that is known here")
                    self._note("stranger", source, f"key {key[:8]} is in no contact that is known here yet")
        except (iroh.IrohError, TimeoutError):
            pass  # it went away, or was none of ours
        finally:
            self._handshakes[source] -= 1
            if not self._handshakes[source]:
                del self._handshakes[source]

    def _start_dial(self, peer: _Peer, address: PeerAddress) -> None:
        if peer.dial is None:
            peer.dial = self._tasks.start(self._dial(peer, address))

    async def _dial(self, peer: _Peer, address: PeerAddress) -> None:
        try:
            async with asyncio.timeout(self._options.dial_s):
                connection = await self._endpoint.connect(address.form(), ALPN)
            self._add(connection, address.key, dialled=True)
            peer.failure = (
                "it closed the connection at once: not a member that is known there, or without room"
            )
        except iroh.IrohError as error:
            peer.failure = f"it cannot be dialled: {error.message()}"
        except TimeoutError:
            peer.failure = f"it did not answer within {self._options.dial_s:g} s"
        finally:
            if (
                peer.dial is asyncio.current_task()
            ):  # else its addresses have changed, and another one goes on
                peer.dial, peer.dials = None, peer.dials + 1
                peer.dial_at = time.monotonic() + peer.pause
                peer.pause = min(2 * peer.pause, _LONGEST_PAUSE_S)
                peer.change()

    def _keep(self, peer: _Peer, now: float) -> None:
        if peer.address and peer.wanted_until > now >= peer.dial_at and peer.newest() is None:
            self._start_dial(peer, peer.address)

    def _add(self, connection: iroh.Connection, key: str, *, dialled: bool) -> None:
        if not self._make_room():
            connection.close(1, b"too many connections")
            return
        connection.set_max_concurrent_bi_streams(MAX_STREAMS)
        connection.set_max_concurrent_uni_streams(0)
        now = time.monotonic()
        peer = self._peers.setdefault(key, _Peer())
        taken = [live for live in peer.lives if not live.dialled]
        if not dialled and len(taken) >= MAX_OF_ONE_KEY:
            taken[0].close("a newer connection")
        live = Live(connection, key, dialled, since=now, used_at=now, heard_at=now)
        peer.lives.append(live)
        peer.change()
        self._tasks.start(self._until_closed(live, peer))
        self._tasks.start(_no_one_way_streams(live))
        self._tasks.start(tell_seen(live))
        self._tasks.start(hear_seen(live))

    async def _until_closed(self, live: Live, peer: _Peer) -> None:
        serving = self._tasks.start(self._serve(live))
        try:
            await live.connection.closed()
        finally:
            peer.lives.remove(live)
            serving.cancel()

    def _make_room(self) -> bool:
        """Whether there is room for one more; the one unused for longest makes room."""
        lives = [live for peer in self._peers.values() for live in peer.lives]
        if len(lives) < MAX_CONNECTIONS:
            return True
        now = time.monotonic()
        unused = [each for each in lives if not each.busy and self._peers[each.key].wanted_until < now]
        if not unused:
            return False
        min(unused, key=lambda live: live.used_at).close("unused, and others need its place")
        return True

    def _look_after(self, live: Live, peer: _Peer, now: float) -> None:
        live.hear(now)
        if live.busy:
            live.used_at = now
        if now - live.since > _STAYS_S:
            peer.pause = _FIRST_PAUSE_S
        if now - live.heard_at > self._options.silent_s:
            live.close("nothing came for too long")
        elif live.dialled and peer.wanted_until < now and now - live.used_at > self._options.idle_s:
            live.close("idle")


def _aim(peer: _Peer, address: PeerAddress) -> None:
    """Dial the peer at `address` from now on. A dial to others, which may lead nowhere, is given up."""
    if address == peer.address:
        return
    peer.address, peer.dial_at, peer.pause = address, 0.0, _FIRST_PAUSE_S
    if peer.dial is not None:
        peer.dial.cancel()
        peer.dial = None


async def _no_one_way_streams(live: Live) -> None:
    """Close a connection whose peer opens what the protocol has none of."""
    try:
        await live.connection.accept_uni()
    except iroh.IrohError:
        return  # the connection has ended
    live.close("a one-way stream")


def _host(source: object) -> str:
    """What connections are counted by: an IP address or network, or what else the library names."""
    if isinstance(source, iroh.IncomingAddr.IP):
        return source_of(source.addr.rpartition(":")[0])
    return str(source)
