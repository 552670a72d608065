"""A substrate node on the loopback interface: a `Subtensor` behind websocket JSON-RPC, for the real SDK.

Signatures, nonces, eras, storage keys, values and events are those of the wire. Blocks come when the test
says so (`advance`), when something is submitted (`instant`), or by the clock (`block_time`).
"""

from __future__ import annotations

import asyncio
import http
from types import TracebackType
from typing import Final, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from tests.support.subtensor.blocks import ChainBlock, Extrinsic, PoolRefusal
from tests.support.subtensor.chain import Subtensor
from tests.support.subtensor.encoding import Runtime, as_bytes, header, runtime
from tests.support.subtensor.faults import Faults, Kind
from tests.support.subtensor.metadata import RECORDED_SPEC_VERSION, RuntimeKind
from tests.support.subtensor.methods import methods_of
from tests.support.subtensor.rpc import MAX_FRAME_BYTES, RpcConnection
from tests.support.subtensor.shield import Shield
from tests.support.subtensor.signatures import decode_signed
from tests.support.subtensor.watches import Topic, Watch

MAX_CONNECTIONS: Final = 64
_HOST: Final = "127.0.0.1"
# Clients keep metadata on disk by genesis hash and spec version, so no two kinds share a version.
_FIRST_SPEC_VERSION: Final = {
    RuntimeKind.ITEM_ABSENT: RECORDED_SPEC_VERSION - 100,
    RuntimeKind.FITTING: RECORDED_SPEC_VERSION,
    RuntimeKind.CALL_CHANGED: RECORDED_SPEC_VERSION + 100,
}


class LoopbackNode:
    """Use it as an asynchronous context manager; `url` is known inside."""

    def __init__(
        self,
        chain: Subtensor,
        *,
        port: int = 0,
        kind: RuntimeKind = RuntimeKind.FITTING,
        shielded: bool = False,
        instant: bool = False,
        block_time: float = 0.0,
    ) -> None:
        """
        Args:
            chain: what the node shows; the test reads and edits it directly.
            port: 0 takes a free one.
            kind: the runtime that it begins with.
            shielded: offers keys for shielded extrinsics and opens them as a block author.
            instant: every submission is followed at once by as many blocks as make it final.
            block_time: seconds between blocks; 0 leaves the clock to the test.
        """
        self.chain = chain
        self.faults = Faults()
        self.port = port
        self._runtimes = [(0, self._new_runtime(kind, 0))]
        self._shield = Shield() if shielded else None
        self._opened: set[str] = set()
        self._failures: list[Exception] = []
        self._instant = instant
        self._block_time = block_time
        self._methods = methods_of(self)
        self._connections: set[RpcConnection] = set()
        self._announced_final = chain.finalized.number
        self._submitted = asyncio.Event()
        self._arrived = asyncio.Event()
        self._building = asyncio.Lock()
        self._server: Server | None = None
        self._clock: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"ws://{_HOST}:{self.port}"

    @property
    def runtime(self) -> Runtime:
        """The one that checks what is submitted now."""
        return self._runtimes[-1][1]

    def runtime_at(self, number: int) -> Runtime:
        """The one that stands in the state of a block."""
        return next(version for first, version in reversed(self._runtimes) if first <= number)

    # The node's life

    async def __aenter__(self) -> Self:
        self._offer_key()
        await self.listen()
        if self._instant or self._block_time:
            self._clock = asyncio.create_task(self._run_clock(), name="loopback-node-clock")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._clock is not None:
            self._clock.cancel()
            await asyncio.wait([self._clock])
        await self.refuse()
        if self._clock is not None and not self._clock.cancelled():
            self._clock.result()
        if self._failures:
            raise ExceptionGroup("requests that the node failed at", self._failures)

    async def listen(self) -> None:
        """Accepts connections, on the port that it had before."""
        self._server = await serve(
            self._serve_client, _HOST, self.port, max_size=MAX_FRAME_BYTES, process_request=self._admit
        )
        self.port = next(iter(self._server.sockets)).getsockname()[1]

    async def refuse(self) -> None:
        """Cuts every connection and refuses new ones, until `listen`. State and pool are kept."""
        if self._server is None:
            return
        self._server.close(close_connections=False)
        self.drop()
        await self._server.wait_closed()
        self._server = None

    async def restart(self) -> None:
        """Goes, and comes back on the same port with its state."""
        await self.refuse()
        await self.listen()

    def drop(self) -> None:
        """Cuts every connection that is open."""
        for connection in list(self._connections):
            connection.abort()

    # The chain's course

    async def advance(self, count: int = 1) -> ChainBlock:
        """Makes blocks one by one, and tells those who listen; returns the new head."""
        async with self._building:
            for _ in range(count):
                self._open_shielded()
                self.chain.make_block()
                self._offer_key()
                await self._announce()
        return self.chain.head

    async def reorganise(self, depth: int, *, lose: bool = False) -> tuple[Extrinsic, ...]:
        """Replaces the last blocks as `Subtensor.reorganise` does, and tells those who listen."""
        async with self._building:
            lost = self.chain.reorganise(depth, lose=lose)
            await self._announce()
        return lost

    async def upgrade(self, kind: RuntimeKind = RuntimeKind.FITTING) -> Runtime:
        """A new runtime, with a spec version of its own: a block that brings it, and one that it makes.

        What was signed for the old one is refused. A client that is connected looks for the change only
        every 12 s.
        """
        async with self._building:
            upgraded = self._new_runtime(kind, len(self._runtimes))
            self._runtimes.append((self.chain.head.number + 1, upgraded))
        await self.advance(2)
        return upgraded

    def submit(self, extrinsic: Extrinsic) -> Extrinsic:
        """Puts a decoded extrinsic into the pool.

        Raises:
            PoolRefusal: the pool does not take it.
        """
        self.chain.submit(extrinsic)
        self._submitted.set()
        self._arrived.set()
        return extrinsic

    async def pooled(self, count: int = 1) -> None:
        """Waits until so many extrinsics wait in the pool."""
        while len(self.chain.pool.waiting) < count:
            self._arrived.clear()
            await self._arrived.wait()

    # Within

    def _new_runtime(self, kind: RuntimeKind, upgrades: int) -> Runtime:
        slot_ms = self.chain.constant("Aura", "SlotDuration")
        return runtime(kind, _FIRST_SPEC_VERSION[kind] + upgrades, slot_ms)

    async def _run_clock(self) -> None:
        while True:
            if self._block_time:
                await asyncio.sleep(self._block_time)
                await self.advance()
            else:
                await self._submitted.wait()
                self._submitted.clear()
                await self.advance(self.chain.finality_lag + 1)

    def _offer_key(self) -> None:
        if self._shield is not None:
            self.chain.shield_key(self._shield.next_key())

    def _open_shielded(self) -> None:
        """A block author's part in shielding: the block holds what the carriers in the pool have sealed."""
        if self._shield is None:
            return
        for carrier in self.chain.pool.waiting:
            sealed = (carrier.call.module, carrier.call.function) == ("MevShield", "submit_encrypted")
            if not sealed or carrier.hash in self._opened:
                continue
            self._opened.add(carrier.hash)
            opened = self._shield.open(as_bytes(carrier.call.params["ciphertext"]))
            if opened is None:
                continue
            try:
                self.chain.include_decrypted(decode_signed(self.runtime, self.chain, opened))
            except PoolRefusal:
                # What a stranger has sealed may be anything; the carrier is in the block all the same.
                continue

    async def _announce(self) -> None:
        finals = range(self._announced_final + 1, self.chain.finalized.number + 1)
        self._announced_final = self.chain.finalized.number
        for connection in list(self._connections):
            for subscription in list(connection.subscriptions.values()):
                if subscription.topic is Topic.NEW_HEADS:
                    await connection.notify(subscription, header(self.chain.head))
                elif subscription.topic is Topic.FINALIZED_HEADS:
                    for number in finals:
                        block = self.chain.block(number)
                        assert block is not None
                        await connection.notify(subscription, header(block))
                elif isinstance(subscription.topic, Watch):
                    for notice in subscription.topic.progress(self.chain):
                        await connection.notify(subscription, notice)
                    if subscription.topic.over:
                        connection.unsubscribe(subscription.id)

    async def _serve_client(self, socket: ServerConnection) -> None:
        connection = RpcConnection(socket, self._methods, self.faults)
        self._connections.add(connection)
        try:
            await connection.serve()
        except Exception as error:
            self._failures.append(error)
            raise
        finally:
            self._connections.discard(connection)

    def _admit(self, socket: ServerConnection, request: Request) -> Response | None:
        """Lets a client in, or answers its handshake with a refusal."""
        if len(self._connections) >= MAX_CONNECTIONS:
            return socket.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")
        if self.faults.take("", Kind.HANDSHAKE_429):
            response = socket.respond(http.HTTPStatus.TOO_MANY_REQUESTS, "too many requests\n")
            response.headers["Retry-After"] = "60"
            response.headers["X-RateLimit-Policy"] = "connections"
            return response
        return None
