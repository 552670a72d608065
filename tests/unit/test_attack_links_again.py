"""What a second attacker of links tried: silence, floods and lies that cost others more than their maker."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import iroh
import pytest
from aiohttp import web

from iota.http import HttpClient, NoAnswer, Redirected, UploadPace, connections
from iota.http import client as http_client
from iota.http import names as http_names
from iota.http.server import ConnectionLimits, admit, listening
from iota.protocol.contacts import Contact, IrohContact
from iota.protocol.frames import Direction
from iota.protocol.receipts import OpKind
from iota.spec import Pipeline
from iota.store import open_store
from iota.store.s3 import S3Store
from iota.store.store import StoreUnavailable
from iota.wire.arrivals import Arrivals
from iota.wire.expectation import Expectation
from iota.wire.frame import head_size
from iota.wire.iroh_link import IrohLink, anywhere
from iota.wire.iroh_options import IDLE_BURST, MAX_NAMED, MAX_STREAMS, IrohOptions
from iota.wire.iroh_pipe import Kind
from iota.wire.iroh_process import IrohProcess
from iota.wire.iroh_status import NatKind
from iota.wire.iroh_tasks import Tasks
from iota.wire.link import DoorRefused, Refusal
from iota.wire.transport import IncomingFrame
from miner import links as miner_links
from miner.core.facts import FrameArrived, OpBad, OpDone
from miner.core.inputs import MAX_BAD_OF_ONE
from miner.links import MinerLinks
from tests.support.doors import MemoryDoor
from tests.support.frames import frame_name, pushed
from tests.support.iroh_links import contact_of as iroh_contact_of
from tests.support.iroh_links import iroh_ends
from tests.support.iroh_peers import answer_in, preface, raw_peer
from tests.support.odd_s3 import credentials, odd_s3
from tests.support.peer_ends import contact_of, open_end, signed_frame
from tests.support.plans import share_of, whole_plan
from tests.support.pushed import activations, gradient, header_of, op_of, push, ready
from tests.support.replica_cores import FIRST, LAST, ME, ended, hear, made, training
from tests.support.virtual_runs import tiny_spec

# ---- HTTP ----------------------------------------------------------------------------------------------


async def test_names_whose_servers_are_silent_take_no_thread_that_writes_frames(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A look-up goes on when its push is cancelled, and a member names ever new hosts."""
    answered, real = threading.Event(), socket.getaddrinfo

    def silent(host: str, *rest: Any, **named: Any) -> Any:
        if not str(host).endswith(".example"):
            return real(host, *rest, **named)
        answered.wait(20)
        raise socket.gaierror("no answer")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    async with open_end(1, {}) as alice, open_end(2, {}) as bob:
        frame = signed_frame(frame_name(), alice.hotkey, bob.hotkey)
        contact = contact_of(bob.hotkey, 9).contact
        for number in range(http_names.MAX_LOOK_UPS + 8):
            to = contact.model_copy(update={"direct": (f"n{number}.example:80",)})
            push = asyncio.create_task(alice.link.push(frame, to))
            await asyncio.sleep(0.01)
            push.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await push
        assert threading.active_count() < 2 * http_names.MAX_LOOK_UPS
        try:
            async with asyncio.timeout(5):
                await asyncio.to_thread(lambda: None)
        finally:
            answered.set()


async def test_informational_answers_without_end_are_no_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            while True:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
                await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server, HttpClient() as client:
        with pytest.raises(NoAnswer, match="informational"):
            await client.fetch("GET", url, max_bytes=10, timeout_s=20)


async def test_a_few_informational_answers_come_before_an_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):  # over one connection
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * http_client.MAX_INTERIM)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    async with server, HttpClient(1) as client:
        for _ in range(2):
            assert (await client.fetch("GET", url, max_bytes=10, timeout_s=20)).body == b"ok"


@asynccontextmanager
async def _asked_and_not_read(size: int) -> AsyncIterator[asyncio.Event]:
    """A peer asks for `size` bytes and reads none; the event is set when its connection is lost."""
    lost = asyncio.Event()

    async def give(request: web.Request) -> web.Response:
        admit(request)
        answer = web.Response(body=bytes(size))
        try:
            await answer.prepare(request)
            await answer.write_eof()
        finally:
            if request.transport is None:
                lost.set()
        return answer

    app = web.Application()
    app.router.add_get("/", give)
    async with listening(app, "127.0.0.1", 0, ConnectionLimits(shutdown_s=0.1)) as url:
        with socket.socket() as peer:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            peer.connect(("127.0.0.1", int(url.rpartition(":")[2])))
            peer.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            yield lost


async def test_who_asks_and_does_not_read_is_closed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer would stay in the server's memory for as long as its peer likes."""
    monkeypatch.setattr(connections, "UNREAD_S", 0.2)
    monkeypatch.setattr(connections, "LEAST_READ", 1 << 30)
    async with _asked_and_not_read(16 << 20) as lost, asyncio.timeout(10):
        await lost.wait()


async def test_a_larger_answer_has_more_time_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "UNREAD_S", 0.0)
    monkeypatch.setattr(connections, "LEAST_READ", 1 << 20)
    async with _asked_and_not_read(16 << 20) as lost:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await lost.wait()


async def test_headers_that_a_miner_keeps_of_a_stranger_are_few() -> None:
    """2,048 connections with 128 fields of 8 kB each would hold 2 GB."""
    async with open_end(1, {}) as alice:
        reader, writer = await asyncio.open_connection("127.0.0.1", alice.port)
        writer.write(b"POST /v1/frames HTTP/1.1\r\nHost: x\r\n")
        for number in range(40):
            writer.write(b"X-%d: " % number + b"x" * 2000 + b"\r\n")
        async with asyncio.timeout(5):
            assert b" 400 " in await reader.readline()
        writer.close()


@pytest.mark.parametrize("status", [307, 301])
async def test_a_store_that_redirects_ends_its_check_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """AWS does so for a bucket that is new, or in another region."""

    async def fetch(*_: object, **__: object) -> None:
        raise Redirected(f"it redirects (HTTP {status}), which is not followed")

    monkeypatch.setattr(HttpClient, "fetch", fetch)
    with credentials():
        async with odd_s3() as (_, url):
            store = open_store(url)
            assert isinstance(store, S3Store)
            with pytest.raises(StoreUnavailable, match="redirects"):
                await store.check()
            await store.close()


# ---- the upload's pace ---------------------------------------------------------------------------------


async def test_transfers_that_are_cancelled_while_they_wait_take_nothing_of_the_pace() -> None:
    """Who refuses frames at once, or has them hedged, would take a neighbour's line without a byte of it."""
    pace, loop = UploadPace(1e6), asyncio.get_running_loop()
    await pace.spend(100_000)
    waiting = [asyncio.create_task(pace.spend(1_000_000)) for _ in range(10)]
    await asyncio.sleep(0)
    for task in waiting:
        task.cancel()
    began = loop.time()
    async with asyncio.timeout(1):
        await pace.spend(1)
    assert loop.time() - began < 0.5


async def test_a_peer_that_is_not_reached_takes_nothing_of_the_pace() -> None:
    spent = []

    class Counted(UploadPace):
        async def spend(self, size: int) -> None:
            spent.append(size)

    async with iroh_ends(1, pace=Counted(None), dial_s=1.0) as (end,):
        nobody = iroh_contact_of(IrohContact(key=f"{7:064x}", addresses=("127.0.0.1:9",)))
        with suppress(Exception):
            await end.link.push(pushed(payload=bytes(3_000_000)), nobody)
        assert spent == []


# ---- iroh ----------------------------------------------------------------------------------------------


async def test_streams_that_bring_no_frame_end_their_connection(caplog: pytest.LogCaptureFixture) -> None:
    """Each costs its receiver a check of a signature, and its sender some hundred bytes."""
    data = pushed(payload=bytes(1000)).data
    head = data[: head_size(data)]
    async with iroh_ends(1) as (end,), raw_peer() as peer:
        end.members.add(peer.key)
        end.door.refuses = DoorRefused(Refusal.NOT_EXPECTED, "of nobody's plan")
        assert end.contact.iroh is not None
        connection = await peer.dial(end.contact.iroh)

        async def flood() -> None:
            with suppress(iroh.IrohError):
                while True:
                    stream = await connection.open_bi()
                    await stream.send().write_all(preface(len(head), len(data)) + head)
                    await stream.send().finish()
                    await answer_in(stream)

        async with asyncio.timeout(20):
            await asyncio.gather(*(flood() for _ in range(MAX_STREAMS)))
        assert connection.close_reason() is not None
        assert end.door.asked < 3 * IDLE_BURST
        await end.until(lambda: "floods" in caplog.text)


async def test_what_strangers_do_is_told_to_the_miner_once_for_each_and_of_few() -> None:
    told: list[tuple[Kind, object]] = []

    class Told:
        def post_json(self, kind: Kind, number: int, value: object) -> None:
            told.append((kind, value))

    process = IrohProcess(cast(Any, Told()), cast(Any, None), IrohOptions(), Tasks())
    for number in range(100):
        process._note("dials-too-often", "192.0.2.1", "said")
        process._note("stranger", f"192.0.2.{number}", "said")
    assert len(told) == 1 + MAX_NAMED


async def test_who_names_anothers_key_first_has_it_dialled_at_that_ones_addresses_too() -> None:
    told: list[dict[str, Any]] = []

    class Child:
        status = None

        def tell(self, kind: Kind, value: dict[str, Any]) -> None:
            told.append(value)

    link = IrohLink(bytes(32), MemoryDoor(), lambda key: True, IrohOptions(), anywhere, UploadPace(None))
    link._child = cast(Any, Child())
    for hotkey, address in ((FIRST, "192.0.2.66:6"), (LAST, "192.0.2.2:7")):
        iroh = IrohContact(key=f"{5:064x}", addresses=(address,))
        link.prepare(Contact(run="ab" * 32, hotkey=hotkey, version=1, expires=time.time() + 60, iroh=iroh))
    assert [each["addresses"] for each in told] == [["192.0.2.66:6"], ["192.0.2.2:7", "192.0.2.66:6"]]


async def test_a_peer_that_sees_another_address_each_second_does_not_have_the_contact_change_so_often(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A contact that is another one has all neighbours measure their links anew, and each says so."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(miner_links, "_NAT_S", 0.01)

    class Link:
        looks = 0

        def contact(self) -> IrohContact:
            self.looks += 1
            return IrohContact(key="0" * 64, addresses=(f"192.0.2.1:{self.looks % 60000 + 1}",))

        @property
        def status(self) -> Any:
            kind = NatKind.CONE if self.looks % 2 else NatKind.SYMMETRIC
            return type("Status", (), {"nat": kind})

    class Book:
        renewed = 0

        def renew(self) -> None:
            self.renewed += 1

    link, book = Link(), Book()
    made = MinerLinks.__new__(MinerLinks)
    made.book = cast(Any, book)
    with suppress(TimeoutError):
        async with asyncio.timeout(1):
            await made._tell_nat(cast(Any, link), 8760)
    assert link.looks > 20
    assert 1 <= book.renewed <= 8, "pauses double: 0.01, 0.02, ... s"
    assert len([r for r in caplog.records if "NAT" in r.getMessage()]) == 2


async def test_frames_that_wait_for_a_reader_are_let_go_when_it_ends() -> None:
    """A neighbour pushes more of them than wait there: each would stay in memory after the life's end."""
    arrivals, frame = Arrivals(2), pushed()
    passed = [
        asyncio.create_task(arrivals.pass_on(IncomingFrame(frame.notice, FIRST, frame.data)))
        for _ in range(8)
    ]
    await asyncio.sleep(0)
    arrivals.close()
    async with asyncio.timeout(1):
        await asyncio.gather(*passed)
    assert len([each async for each in arrivals.incoming()]) <= 2


# ---- words of one neighbour that cost another ---------------------------------------------------------


@pytest.mark.parametrize("guilty", [Direction.FORWARD, Direction.BACKWARD])
def test_gradients_of_nan_do_not_send_the_activations_of_an_honest_neighbour_to_the_store(
    guilty: Direction,
) -> None:
    """All inputs of a bad op are stored, so that the orchestrator can judge. One alone is to blame."""
    count = MAX_BAD_OF_ONE + 1
    spec = tiny_spec(
        stages=3, replicas=1, epochs=1, steps=1, microbatches=count, pipeline=Pipeline.SYNC, credit=count
    )
    core = training(spec=spec)
    hear(core, share_of(whole_plan((FIRST, ME, LAST), count), ME))
    for index in range(MAX_BAD_OF_ONE):
        ended(core, OpDone(op_of(push(core, activations(index))), made(core, index)))
        bad = op_of(push(core, gradient(index)))
        assert bad.kind is OpKind.BACKWARD
        ended(core, OpBad(bad, (guilty,)))
        for name in (activations(index), gradient(index)):
            hear(core, ready(name, content=1))
        core.take(FrameArrived(activations(index)))
        ended(core, OpDone(op_of(core.take(FrameArrived(gradient(index)))), None))
    forward = core.expects(header_of(activations(MAX_BAD_OF_ONE), spec=spec))
    backward = core.expects(header_of(gradient(MAX_BAD_OF_ONE), LAST, spec=spec))
    wrong, right = (forward, backward) if guilty is Direction.FORWARD else (backward, forward)
    assert (wrong, right) == (Expectation.WRONG, Expectation.EXPECTED)
