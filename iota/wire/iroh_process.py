"""The iroh process of a miner: the native library, and nothing else, so that its end is not the miner's.

    python -m iota.wire.iroh_process SOCKET

The miner starts it (`iota.wire.iroh_child`), and it ends when the miner's end of the socket is closed, as the
miner's death does too. It knows no frame's meaning: it passes heads and bytes on, and answers as it is told.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from functools import partial
from typing import Any, Final

import iroh
from iroh import iroh_ffi

from iota.http.sources import MAX_SOURCES
from iota.http.token_buckets import TokenBuckets
from iota.system.process_sockets import shared_socket
from iota.system.signals import present
from iota.wire import iroh_buffers
from iota.wire.iroh_connections import Connections, NotReached
from iota.wire.iroh_live import Live, PeerAddress
from iota.wire.iroh_options import (
    ALPN,
    IDLE_BURST,
    IDLE_RATE,
    MAX_NAMED,
    MAX_STREAMS,
    IrohOptions,
)
from iota.wire.iroh_pipe import Kind, Message, Pipe, PipeError
from iota.wire.iroh_streams import Arrival, Outgoing, StreamFailed, receive_frame, send_frame
from iota.wire.iroh_tasks import Tasks

_CLOSE_S: Final = 1.0
"""For peers to hear that this endpoint closes."""
_MAX_REFUSED: Final = 64
"""Streams over the bound after which a connection is closed."""


class IrohProcess:
    """An endpoint that does what the miner at the other end of `pipe` says."""

    def __init__(self, pipe: Pipe, endpoint: iroh.Endpoint, options: IrohOptions, tasks: Tasks) -> None:
        self._pipe, self._endpoint, self._options, self._tasks = pipe, endpoint, options, tasks
        self._pushes: dict[int, tuple[Outgoing, asyncio.Task[None]]] = {}
        self._arrivals: dict[int, Arrival] = {}
        self._asked: dict[int, asyncio.Future[bool]] = {}
        self._idle = TokenBuckets(IDLE_RATE, IDLE_BURST, MAX_SOURCES)
        """By network key: streams that bring no frame."""
        self._named: dict[str, set[str]] = {}
        """By case: whom the miner was told of."""
        self._numbers = 0
        self._chunk = memoryview(b"")
        """The body of the DATA that is being read."""
        self._connections = Connections(
            endpoint, options, tasks, serve=self._serve, is_member=self._is_member, note=self._note
        )

    async def run(self) -> None:
        """Serve until the miner closes its end. Raises PipeError then."""
        self._pipe.post_json(Kind.READY, 0, self._status())
        self._tasks.start(self._connections.accept())
        self._tasks.start(self._connections.keep_up())
        while True:
            self._obey(await self._pipe.read(self._place))

    def _place(self, kind: Kind, number: int, length: int) -> memoryview | None:
        if kind is not Kind.DATA or number not in self._pushes:
            return None
        self._chunk = memoryview(bytearray(length))
        return self._chunk

    def _obey(self, message: Message) -> None:
        match message.kind:
            case Kind.PING:
                self._tasks.start(self._pong(message.number))
            case Kind.PUSH:
                outgoing, said = Outgoing(), message.json()
                task = self._tasks.start(self._push(message.number, said, outgoing))
                self._pushes[message.number] = outgoing, task
                task.add_done_callback(partial(self._forget_push, message.number))
            case Kind.DATA if message.number in self._pushes:
                self._pushes[message.number][0].put(self._chunk)
            case Kind.CANCEL if message.number in self._pushes:
                self._pushes[message.number][1].cancel()
            case Kind.PREPARE:
                said = message.json()
                self._connections.prepare(_address(said), said["leave"])
            case Kind.ADDRESSES:
                self._tasks.start(self._add_addresses(message.json()))
            case Kind.MEMBER if message.number in self._asked:
                self._asked.pop(message.number).set_result(message.body == b"\1")
            case Kind.ADMITTED | Kind.ANSWER | Kind.DROP if message.number in self._arrivals:
                _tell(self._arrivals[message.number], message)

    async def _pong(self, number: int) -> None:
        await self._endpoint.remote_addr(self._endpoint.id())  # by way of the library's own threads
        self._pipe.post_json(Kind.PONG, number, self._status())

    async def _add_addresses(self, addresses: list[str]) -> None:
        for address in addresses:
            with suppress(iroh.IrohError):
                await self._endpoint.add_external_addr(address)

    async def _push(self, number: int, said: dict[str, Any], outgoing: Outgoing) -> None:
        live: Live | None = None
        try:
            live = await self._connections.get(_address(said["peer"]))
            async with live.sending:
                live.going += 1
                try:
                    answer = await send_frame(live, said["head"], said["size"], outgoing, self._pipe, number)
                finally:
                    live.going -= 1
        except NotReached as error:
            self._broken(number, str(error), unreachable=True)
        except StreamFailed as error:
            self._broken(number, str(error), unreachable=False)
        except iroh.IrohError as error:
            closed = live.connection.close_reason() if live else None
            self._broken(number, closed or error.message(), unreachable=live is None or closed is not None)
        else:
            self._pipe.post(Kind.ANSWERED, number, answer)

    def _broken(self, number: int, why: str, *, unreachable: bool) -> None:
        self._pipe.post_json(Kind.BROKEN, number, {"unreachable": unreachable, "why": why[:200]})

    def _forget_push(self, number: int, _task: asyncio.Task[None]) -> None:
        del self._pushes[number]

    async def _serve(self, live: Live) -> None:
        while True:
            try:
                stream = await live.connection.accept_bi()
            except iroh.IrohError:
                return  # the connection has ended
            if live.coming < MAX_STREAMS:
                live.coming += 1
                self._tasks.start(self._receive(live, stream))
                continue
            live.refused += 1
            if live.refused > _MAX_REFUSED:
                self._floods(live, "it opens streams beyond the bound; its connection is closed")
                return
            with suppress(iroh.IrohError):
                await stream.recv().stop(2)
                await stream.send().reset(2)

    def _floods(self, live: Live, text: str) -> None:
        self._note("floods", live.key, text)
        live.close("too many streams")

    async def _receive(self, live: Live, stream: iroh.BiStream) -> None:
        number = self._number()
        arrival = self._arrivals[number] = Arrival(live)
        try:
            whole = await receive_frame(live, stream, arrival, self._pipe, number, self._options, self._note)
        finally:
            live.coming -= 1
            del self._arrivals[number]
        if not whole and not self._idle.allows(live.key, time.monotonic()):
            self._floods(live, "it opens streams that bring no frame; its connection is closed")

    async def _is_member(self, key: str) -> bool:
        number = self._number()
        asked: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asked[number] = asked
        self._pipe.post(Kind.KEY, number, bytes.fromhex(key))
        try:
            return await asked
        finally:
            self._asked.pop(number, None)

    def _note(self, case: str, key: str, text: str) -> None:
        named = self._named.setdefault(case, set())
        if key not in named and len(named) < MAX_NAMED:  # strangers must not keep the miner reading of them
            named.add(key)
            self._pipe.post_json(Kind.NOTE, 0, {"case": case, "key": key, "text": text})

    def _number(self) -> int:
        self._numbers = (self._numbers + 1) % (1 << 32)
        return self._numbers

    def _status(self) -> dict[str, Any]:
        address = self._endpoint.addr()
        return {
            "key": self._endpoint.id().to_bytes().hex(),
            "bound": self._endpoint.bound_sockets(),
            "addresses": address.direct_addresses(),
            "relay": address.relay_url(),
            "peers": self._connections.status(),
        }


def _address(said: dict[str, Any]) -> PeerAddress:
    return PeerAddress(said["key"], said["relay"], tuple(said["addresses"]))


def _tell(arrival: Arrival, message: Message) -> None:
    if message.kind is Kind.ADMITTED:
        arrival.admit()
        return
    arrival.end(message.body if message.kind is Kind.ANSWER else None)
    if message.kind is Kind.DROP and message.body:
        arrival.live.close("not a member that is known here any more")


async def _bind(options: IrohOptions, secret: bytes) -> iroh.Endpoint:
    """An endpoint without anybody's relays or discovery but what `options` name. Raises IrohError."""
    try:
        endpoint = await _bound(options, secret, options.bind)
    except iroh.IrohError:
        old = tuple(address for address in options.bind if not address.startswith("["))
        if not old or old == options.bind:
            raise
        endpoint = await _bound(options, secret, old)  # a system without IPv6
    for address in options.public:
        await endpoint.add_external_addr(address)
    return endpoint


async def _bound(options: IrohOptions, secret: bytes, addresses: tuple[str, ...]) -> iroh.Endpoint:
    builder = iroh.EndpointBuilder()  # type: ignore[no-untyped-call]
    builder.apply_minimal()
    relays = iroh.RelayMode.custom_from_urls(list(options.relays))
    builder.relay_mode(relays if options.relays else iroh.RelayMode.disabled())
    builder.secret_key(secret)
    builder.alpns([ALPN])
    for address in addresses:
        builder.bind_addr(address)
    return await builder.bind()


async def _serve(pipe: Pipe) -> None:
    tasks = Tasks()
    writing = tasks.start(pipe.write())
    config = (await pipe.read(lambda *_: None)).json()
    options = IrohOptions(**{key: _value(value) for key, value in config["options"].items()})
    try:
        endpoint = await _bind(options, bytes.fromhex(config["secret"]))
    except iroh.IrohError as error:
        await pipe.send(Kind.FAILED_TO_START, 0, error.message().encode()[:1000])
        return
    if options.block_copies and not iroh_buffers.apply(iroh_ffi):
        text = "this version of the iroh package is not known: frames move at a few MB/s by it"
        pipe.post_json(Kind.NOTE, 0, {"case": "slow-buffers", "key": "", "text": text})
    running = tasks.start(IrohProcess(pipe, endpoint, options, tasks).run())
    await asyncio.wait({running, writing, tasks.failed}, return_when=asyncio.FIRST_COMPLETED)
    if not tasks.failed.done() or isinstance(tasks.failed.exception(), PipeError):
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await endpoint.close()
        return
    tasks.failed.result()


def _value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def main() -> None:
    """Serve the miner at the socket that the first argument names; end with it."""
    for number in present("SIGINT", "SIGTERM", "SIGHUP"):
        signal.signal(number, signal.SIG_IGN)  # the miner decides when this process ends
    status = 0
    try:
        asyncio.run(_serve(Pipe(shared_socket(sys.argv[1]))))
    except PipeError:
        pass
    except BaseException:  # noqa: BLE001 - the process's edge, since it is left without a clean-up
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stderr.flush()
    os._exit(status)  # the library's threads are not waited for


if __name__ == "__main__":
    main()
