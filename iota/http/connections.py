"""Limits on connections: their number for each address, the time until a first request, and until an answer
is read."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import Callable
from typing import Final, cast

from iota.http.hosts import is_loopback
from iota.http.sources import MAX_SOURCES, source_of
from iota.http.token_buckets import TokenBuckets

UNREAD_S: Final = 30.0
LEAST_READ: Final = 16 << 10
"""Of n bytes of an answer that wait for the peer, most must be read within `UNREAD_S + n / LEAST_READ` s,
or its connection ends: who asks and does not read has the server keep the answers in memory."""


class ConnectionGuard:
    """Closes connections that never complete a request's headers, and those over an address's limit.

    aiohttp limits the time between requests, but not the time until a connection's first one.
    """

    def __init__(self, header_s: float, limit: int, total: int, rate: float | None = None) -> None:
        """`limit` is that of one source (`source_of`), `total` that of all. One source opens `limit` at once,
        and then `rate` a second; None is no bound."""
        self._accepts = None if rate is None else TokenBuckets(rate, limit, MAX_SOURCES)
        self._header_s, self._limit, self._total = header_s, limit, total
        self._timers: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}
        self._open: Counter[str] = Counter()

    def factory(
        self, inner: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None = None
    ) -> Callable[[], asyncio.Protocol]:
        """Wrap the server's protocol factory, for `loop.create_server` without TLS.

        With `tls` the guard begins it, since a connection that never does must be counted too."""
        return lambda: _Guarded(self, inner(), tls)

    def request_begun(self, transport: asyncio.BaseTransport | None) -> None:
        """Stop the connection's timer: the headers of its first request are complete."""
        timer = self._timers.pop(transport, None) if transport is not None else None
        if timer is not None:
            timer.cancel()

    def opened(self, transport: asyncio.Transport, address: str) -> bool:
        """Count a new connection and start its timer; False where it is over the limit and was aborted."""
        source, loop = source_of(address), asyncio.get_running_loop()
        self._open[source] += 1
        over = self._open[source] > self._limit
        if self._accepts is not None and not self._accepts.allows(source, loop.time()):
            over = True
        over = over and not is_loopback(address)
        if over or self._open.total() > self._total:
            transport.abort()
            return False
        self._timers[transport] = loop.call_later(self._header_s, transport.abort)
        return True

    def secured(self, transport: asyncio.BaseTransport, by: asyncio.BaseTransport) -> None:
        """The connection speaks TLS now; requests name the transport `by`."""
        if (timer := self._timers.pop(transport, None)) is not None:
            self._timers[by] = timer

    def closed(self, transport: asyncio.BaseTransport, address: str) -> None:
        """Forget a closed connection, also one that `opened` aborted."""
        self.request_begun(transport)
        source = source_of(address)
        self._open[source] -= 1
        if self._open[source] <= 0:
            del self._open[source]


class _Guarded(asyncio.Protocol):
    """Protocol of one connection: reports to the guard, and forwards to the server's own protocol."""

    def __init__(self, guard: ConnectionGuard, inner: asyncio.Protocol, tls: ssl.SSLContext | None) -> None:
        self._guard, self._inner, self._tls = guard, inner, tls
        self._transport: asyncio.Transport | None = None
        """What the guard knows the connection by."""
        self._securing: asyncio.Task[None] | None = None
        self._unread: asyncio.TimerHandle | None = None
        """Runs while the peer does not read what it has asked for."""
        self._address = ""
        self._passed = False
        """Whether the server's own protocol has the connection."""
        self._early: list[bytes] = []
        """What came with the end of TLS's handshake, before `_secure` heard of that end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._address = str(peer[0]) if isinstance(peer, tuple) else ""
        if not self._guard.opened(self._transport, self._address):
            return
        if self._tls is None:
            self._passed = True
            self._inner.connection_made(transport)
        else:
            self._transport.pause_reading()  # until TLS reads
            self._securing = asyncio.ensure_future(self._secure(self._transport, self._tls))

    async def _secure(self, transport: asyncio.Transport, tls: ssl.SSLContext) -> None:
        try:
            secure = await asyncio.get_running_loop().start_tls(transport, self, tls, server_side=True)
        except OSError:  # also one of TLS, and of a timer of the guard
            transport.abort()
            secure = None
        if secure is None or self._transport is None:  # it was lost, and nobody else hears of it
            self.connection_lost(None)
            return
        self._guard.secured(transport, secure)
        self._transport, self._passed = secure, True
        self._inner.connection_made(secure)
        for data in self._early:
            self._inner.data_received(data)
        self._early.clear()

    def data_received(self, data: bytes) -> None:
        if self._passed:
            self._inner.data_received(data)
        else:
            self._early.append(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received() if self._passed else None

    def pause_writing(self) -> None:
        if self._transport is not None:
            within_s = UNREAD_S + self._transport.get_write_buffer_size() / LEAST_READ
            self._unread = asyncio.get_running_loop().call_later(within_s, self._transport.abort)
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._is_read()
        self._inner.resume_writing()

    def _is_read(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def connection_lost(self, error: Exception | None) -> None:
        self._is_read()
        if self._transport is not None:
            self._guard.closed(self._transport, self._address)
            self._transport = None
        if self._passed:
            self._passed = False
            self._inner.connection_lost(error)
