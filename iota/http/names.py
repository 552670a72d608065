"""Looks up names in daemon threads of its own: a name server that does not answer holds up nothing else.

A look-up cannot be cancelled and may take half a minute. A peer may name a host whose name server is silent,
so that look-ups must not take the threads in which a miner writes its frames.
"""

from __future__ import annotations

import asyncio
import socket
from threading import Semaphore
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

from iota.system.daemon_threads import DaemonThreads

MAX_LOOK_UPS: Final = 32
"""Under way in one client; a further name is as one that nobody knows."""


class Names(AbstractResolver):
    """The resolver of one client."""

    def __init__(self) -> None:
        self._threads = DaemonThreads()
        self._room = Semaphore(MAX_LOOK_UPS)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a name. Raises OSError."""
        if not self._room.acquire(blocking=False):
            raise OSError(f"{MAX_LOOK_UPS} other names are being looked up, and no answer comes")
        found = self._threads.submit(
            socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG
        )
        found.add_done_callback(lambda _: self._room.release())  # also where nobody waits any more
        return [
            ResolveResult(
                hostname=host,
                host=_numeric(place),
                port=int(place[1]),
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, place in await asyncio.wrap_future(found)
        ]

    async def close(self) -> None:
        """Look-ups that are under way end by themselves."""


def _numeric(place: tuple[str | int, ...]) -> str:
    """The IP address of a socket address, with the interface of one that is of a link alone."""
    scope = place[3] if len(place) > 3 else 0
    return f"{place[0]}%{scope}" if scope else str(place[0])
