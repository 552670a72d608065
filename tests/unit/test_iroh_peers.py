"""Iroh peers that do not keep to the protocol, or are no members."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import iroh
import pytest

from iota.wire.frame import head_size
from iota.wire.iroh_arrivals import KEPT, REFUSED
from iota.wire.iroh_options import MAX_STREAMS
from iota.wire.link import DoorRefused, Refusal
from iota.wire.transport import TransferRefused, TransportError, Unreachable
from tests.support.doors import acknowledgement
from tests.support.frames import pushed
from tests.support.iroh_links import IrohEnd, contact_of, iroh_ends
from tests.support.iroh_peers import RawPeer, answer_in, preface, raw_peer


@pytest.fixture
async def end() -> AsyncIterator[IrohEnd]:
    """An end whose deadlines are short."""
    async with iroh_ends(1, head_s=0.5, grace_s=0.5, least_rate=1e6, dial_s=3.0) as ends:
        yield ends[0]


@pytest.fixture
async def peer(end: IrohEnd) -> AsyncIterator[RawPeer]:
    """A member that does as it likes."""
    async with raw_peer() as made:
        end.members.add(made.key)
        yield made


async def _dial(peer: RawPeer, end: IrohEnd) -> iroh.Connection:
    assert end.contact.iroh is not None
    return await peer.dial(end.contact.iroh)


async def _opened(connection: iroh.Connection, data: bytes) -> iroh.BiStream:
    stream = await connection.open_bi()
    await stream.send().write_all(data)
    return stream


async def _until_it_fails(act: Callable[[], Awaitable[object]]) -> None:
    with suppress(iroh.IrohError):
        while True:
            await act()


async def _is_abandoned(stream: iroh.BiStream) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(iroh.IrohError):
            await answer_in(stream)


async def test_a_frame_as_the_protocol_has_it_is_taken(end: IrohEnd, peer: RawPeer) -> None:
    data = pushed(payload=bytes(100_000)).data
    stream = await _opened(await _dial(peer, end), preface(head_size(data), len(data)) + data)
    assert await answer_in(stream) == KEPT + acknowledgement(data)


@pytest.mark.parametrize(
    "garbage",
    [
        preface(0, 100) + bytes(100),
        preface(5000, 10_000) + bytes(10_000),
        preface(200, 100) + bytes(300),
        preface(100, 1 << 60) + bytes(100),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["no head", "a long head", "less than its head", "endless", "http"],
)
async def test_garbage_reaches_no_door_and_harms_no_other_stream(
    end: IrohEnd, peer: RawPeer, garbage: bytes
) -> None:
    connection = await _dial(peer, end)
    await _is_abandoned(await _opened(connection, garbage))
    assert end.door.asked == 0
    data = pushed().data
    stream = await _opened(connection, preface(head_size(data), len(data)) + data)
    assert await answer_in(stream) == KEPT + acknowledgement(data)


async def test_a_head_that_never_comes_is_not_waited_for(end: IrohEnd, peer: RawPeer) -> None:
    await _is_abandoned(await _opened(await _dial(peer, end), preface(100, 1000) + bytes(10)))
    assert end.door.asked == 0


async def test_dripping_ends_at_the_least_rate_and_is_said_once(
    end: IrohEnd, peer: RawPeer, caplog: pytest.LogCaptureFixture
) -> None:
    data = pushed(payload=bytes(600_000)).data
    connection = await _dial(peer, end)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            stream = await _opened(connection, preface(head_size(data), len(data)) + data[:1000])
            dripping = asyncio.create_task(_drip(stream))
            await _is_abandoned(stream)
            await dripping
    assert len(end.door.given_up) == 2
    assert not end.door.admitted
    assert sum("too-slow" in record.getMessage() for record in caplog.records) == 1


async def _drip(stream: iroh.BiStream) -> None:
    try:
        while True:
            await stream.send().write_all(b"x")
            await asyncio.sleep(0.05)
    except iroh.IrohError:
        return


async def test_a_stream_that_ends_or_is_reset_early_is_given_up(end: IrohEnd, peer: RawPeer) -> None:
    data = pushed(payload=bytes(600_000)).data
    connection = await _dial(peer, end)
    for finish in (True, False):
        stream = await _opened(connection, preface(head_size(data), len(data)) + data[:300_000])
        await end.door.until("admitted", 1)
        await (stream.send().finish() if finish else stream.send().reset(7))
        await _is_abandoned(stream)
        await end.until(lambda: not end.door.admitted)
    assert len(end.door.given_up) == 2


async def test_more_than_a_frame_is_not_read(end: IrohEnd, peer: RawPeer) -> None:
    data = pushed(payload=bytes(1000)).data
    connection = await _dial(peer, end)
    stream = await _opened(connection, preface(head_size(data), len(data)) + data + bytes(50_000))
    assert await answer_in(stream) == KEPT + acknowledgement(data)
    assert list(end.door.kept.values()) == [data]


async def test_a_replayed_stream_changes_nothing(end: IrohEnd, peer: RawPeer) -> None:
    data = pushed().data
    connection = await _dial(peer, end)
    for _ in range(5):
        stream = await _opened(connection, preface(head_size(data), len(data)) + data)
        assert await answer_in(stream) == KEPT + acknowledgement(data)
    assert list(end.door.kept.values()) == [data]


async def test_streams_beyond_the_bound_are_refused_and_a_flood_ends_the_connection(
    end: IrohEnd, peer: RawPeer, caplog: pytest.LogCaptureFixture
) -> None:
    end.door.opened.clear()
    data = pushed(payload=bytes(10)).data
    connection = await _dial(peer, end)
    with caplog.at_level(logging.WARNING):
        async with asyncio.timeout(20):
            await _until_it_fails(lambda: _opened(connection, preface(head_size(data), len(data)) + data))
            await connection.closed()
        await end.until(lambda: any("floods" in record.getMessage() for record in caplog.records))
    assert end.door.asked <= MAX_STREAMS
    end.door.opened.set()


async def test_a_one_way_stream_ends_the_connection(end: IrohEnd, peer: RawPeer) -> None:
    connection = await _dial(peer, end)

    async def open_one_way() -> None:
        await (await connection.open_uni()).write_all(b"hello")

    await _until_it_fails(open_one_way)
    assert "one-way" in (connection.close_reason() or "")


async def test_a_stranger_is_closed_out_before_any_door(end: IrohEnd) -> None:
    async with raw_peer() as stranger:
        connection = await _dial(stranger, end)
        async with asyncio.timeout(10):
            assert "not a member" in await connection.closed()
    assert end.door.asked == 0


async def test_a_neighbour_that_dials_before_its_contact_is_known_dials_again() -> None:
    async with iroh_ends(2) as (one, other):
        assert one.contact.iroh is not None
        one.members.discard(one.contact.iroh.key)
        one.link.prepare(other.contact)
        for _ in range(3):
            with pytest.raises(Unreachable, match="not a member"):
                await one.link.push(pushed(payload=bytes(5_000_000)), other.contact)
        assert other.door.asked == 0
        one.members.add(one.contact.iroh.key)
        frame = pushed(1)
        async with asyncio.timeout(20):
            while True:
                with suppress(Unreachable):
                    assert await one.link.push(frame, other.contact) == acknowledgement(frame.data)
                    return
                await asyncio.sleep(0.1)


async def test_a_member_whose_contact_has_expired_is_closed_out_at_its_next_frame(
    end: IrohEnd, peer: RawPeer
) -> None:
    connection = await _dial(peer, end)
    data = pushed().data
    assert await answer_in(await _opened(connection, preface(head_size(data), len(data)) + data))
    end.members.discard(peer.key)
    await _opened(connection, preface(head_size(data), len(data)) + data)
    async with asyncio.timeout(10):
        assert "not a member" in await connection.closed()


async def test_a_strangers_flood_of_connections_stops_no_members_frames() -> None:
    async with iroh_ends(2) as (one, other), raw_peer() as stranger:

        async def knock() -> None:
            while True:
                try:
                    connection = await asyncio.wait_for(_dial(stranger, other), 2)
                    await connection.closed()
                except (iroh.IrohError, TimeoutError):
                    continue

        knocking = [asyncio.create_task(knock()) for _ in range(20)]
        try:
            async with asyncio.timeout(20):
                for number in range(20):
                    await one.link.push(pushed(number, bytes(1_000_000)), other.contact)
        finally:
            for task in knocking:
                task.cancel()
            await asyncio.gather(*knocking, return_exceptions=True)
    assert len(other.door.kept) == 20


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", TransportError),
        (KEPT + bytes(63), TransportError),
        (KEPT + bytes(65), TransportError),
        (REFUSED + b"no-such-reason\n", TransportError),
        (REFUSED + b"later\n" + b"x" * 201, TransportError),
        (REFUSED + b"later\n\xff\xfe", TransportError),
        (bytes(100_000), TransportError),
        (REFUSED + b"later\nin a while", TransferRefused),
    ],
    ids=["none", "short", "long", "unknown", "wordy", "no text", "endless", "a refusal"],
)
async def test_an_answer_that_is_none_fails_the_push_alone(
    end: IrohEnd, peer: RawPeer, answer: bytes, error: type[Exception]
) -> None:
    async def receive() -> None:
        connection = await peer.accept()
        stream = await connection.accept_bi()
        await stream.recv().read_to_end(1 << 20)
        await stream.send().write_all(answer)
        await stream.send().finish()
        await connection.closed()

    receiving = asyncio.create_task(receive())
    with pytest.raises(error) as raised:
        await end.link.push(pushed(), contact_of(peer.contact()))
    assert not isinstance(raised.value, Unreachable)
    if error is TransferRefused:
        cause = raised.value.__cause__
        assert isinstance(cause, DoorRefused)
        assert cause.why is Refusal.LATER
    receiving.cancel()


async def test_a_peer_that_accepts_and_never_answers_holds_one_push_until_it_is_cancelled(
    end: IrohEnd, peer: RawPeer
) -> None:
    accepting = asyncio.create_task(peer.accept())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await end.link.push(pushed(payload=bytes(3_000_000)), contact_of(peer.contact()))
    await end.until(lambda: accepting.done())
    async with raw_peer() as other:
        end.members.add(other.key)
        data = pushed(1).data
        stream = await _opened(await _dial(other, end), preface(head_size(data), len(data)) + data)
        assert await answer_in(stream) == KEPT + acknowledgement(data)


async def test_another_peer_at_an_address_is_not_believed(end: IrohEnd, peer: RawPeer) -> None:
    impostor = peer.contact().model_copy(update={"key": end.contact.iroh.key[:-2] + "00"})
    accepting = asyncio.create_task(peer.accept())
    with pytest.raises(Unreachable):
        await end.link.push(pushed(), contact_of(impostor))
    accepting.cancel()


async def test_a_dial_to_addresses_that_are_not_its_own_any_more_is_given_up() -> None:
    async with iroh_ends(2, dial_s=60.0) as (sender, receiver):
        assert receiver.contact.iroh is not None
        silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        silent.bind(("127.0.0.1", 0))
        before = receiver.contact.iroh.model_copy(
            update={"addresses": (f"127.0.0.1:{silent.getsockname()[1]}",)}
        )
        pushing = asyncio.create_task(sender.link.push(pushed(), contact_of(before)))
        silent.setblocking(False)
        async with asyncio.timeout(10):
            await asyncio.get_running_loop().sock_recv(silent, 2048)
            sender.link.prepare(receiver.contact)
            await pushing
        silent.close()
