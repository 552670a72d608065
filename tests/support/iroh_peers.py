"""A peer that speaks to an iroh link as it likes: the native library, in the test's own process."""

from __future__ import annotations

import secrets
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import iroh

from iota.protocol.contacts import IrohContact
from iota.wire.iroh_options import ALPN


@dataclass
class RawPeer:
    """An endpoint on loopback without relays."""

    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    endpoint: iroh.Endpoint = field(init=False)

    @property
    def key(self) -> str:
        """Its network key (hex)."""
        return self.endpoint.id().to_bytes().hex()

    def contact(self) -> IrohContact:
        """How it is dialled."""
        return IrohContact(key=self.key, addresses=tuple(self.endpoint.addr().direct_addresses()))

    async def dial(self, to: IrohContact) -> iroh.Connection:
        """A connection to an end."""
        key = iroh.EndpointId.from_bytes(bytes.fromhex(to.key))
        return await self.endpoint.connect(iroh.EndpointAddr(key, None, list(to.addresses)), ALPN)

    async def accept(self) -> iroh.Connection:
        """The next connection from an end."""
        incoming = await self.endpoint.accept_next()
        assert incoming is not None
        return await (await incoming.accept()).connect()


@asynccontextmanager
async def raw_peer() -> AsyncIterator[RawPeer]:
    """A started one."""
    peer = RawPeer()
    builder = iroh.EndpointBuilder()
    builder.apply_minimal()
    builder.relay_mode(iroh.RelayMode.disabled())
    builder.secret_key(peer.secret)
    builder.alpns([ALPN])
    builder.bind_addr("127.0.0.1:0")
    peer.endpoint = await builder.bind()
    try:
        yield peer
    finally:
        await peer.endpoint.close()


def preface(head: int, size: int) -> bytes:
    """What stands before a frame in its stream."""
    return struct.pack("<HQ", head, size)


async def answer_in(stream: iroh.BiStream) -> bytes:
    """The answer in a stream; raises IrohError where it is abandoned."""
    return await stream.recv().read_to_end(1000)
