"""No peer can hold a miner up, fill its memory or have it keep what it does not expect."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from yarl import URL

from iota.codec.shapes import payload_size
from iota.http import HttpClient
from iota.identity.keys import Hotkey
from iota.protocol.frames import FrameName
from iota.wire import direct_server
from iota.wire.direct_server import PATH
from iota.wire.expectation import Expectation
from iota.wire.frame import head_size
from tests.support import hostile_http
from tests.support.frames import frame_name
from tests.support.hostile_http import Answer, hostile
from tests.support.peer_ends import SPEC, End, contact_of, open_end, signed_frame

STRANGER = Hotkey.from_seed(b"x" * 32)


@asynccontextmanager
async def receiver() -> AsyncIterator[tuple[End, End]]:
    """A sender and a receiver that know each other."""
    shelf: dict[FrameName, bytes] = {}
    async with open_end(1, shelf) as alice, open_end(2, shelf) as bob:
        alice.knows(bob)
        bob.knows(alice)
        yield alice, bob


async def accepts_and_never_answers(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def garbage(writer: asyncio.StreamWriter) -> None:
    writer.write(bytes(range(256)) * 16)


async def reset(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def a_signature_of_zeros(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64\r\n\r\n" + bytes(64))


async def an_untrue_refusal(writer: asyncio.StreamWriter) -> None:
    writer.write(b'HTTP/1.1 409 Conflict\r\nContent-Length: 22\r\n\r\n{"why":"not-expected"}')


HOSTILE = [
    accepts_and_never_answers, garbage, reset, a_signature_of_zeros, an_untrue_refusal, hostile_http.bomb,
    hostile_http.redirect, hostile_http.endless_body, hostile_http.endless_headers, hostile_http.drip,
]  # fmt: skip


@pytest.mark.parametrize("answer", HOSTILE, ids=lambda answer: answer.__name__)
async def test_a_hostile_receiver_delays_a_frame_by_a_second_once_and_the_log_names_it_once(
    answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    """The frame is in the store then. Later ones do not wait for such a peer at all."""
    caplog.set_level(logging.WARNING)
    shelf: dict[FrameName, bytes] = {}
    async with open_end(1, shelf) as alice, hostile(answer) as server:
        port = URL(server.url).port
        assert port is not None
        alice.book.contacts[STRANGER.ss58] = contact_of(STRANGER, port).contact
        took = []
        for number in range(12):
            frame = signed_frame(frame_name(microbatch=number), alice.hotkey, STRANGER)
            began = time.monotonic()
            assert await alice.transport.send(frame, STRANGER.ss58) == frame.notice
            took.append(time.monotonic() - began)
        assert len(shelf) == 12
        assert max(took) < 3
        assert sum(took) < 6
    assert len([r for r in caplog.records if STRANGER.ss58 in r.getMessage()]) <= 2


async def _request(end: End, head: str, body: bytes = b"", *, drip_s: float | None = None) -> bytes:
    """What the end's server answers to raw bytes; empty if it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", end.port)
    try:
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode())
        answer = asyncio.create_task(asyncio.wait_for(reader.read(1024), 20))
        for start in range(0, len(body), step := len(body) if drip_s is None else 1):
            if answer.done():
                break
            writer.write(body[start : start + step])
            await asyncio.sleep(drip_s or 0)
        return await answer
    except ConnectionError:
        return b""
    finally:
        writer.close()


def _status(answer: bytes) -> int | None:
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/") else None


async def test_bytes_that_are_no_frame_are_refused_before_a_payload_is_read() -> None:
    async with receiver() as (_, bob):
        size = payload_size(SPEC) + 400
        assert _status(await _request(bob, f"Content-Length: {size}", b"GET / x" * 8)) == 400
        assert _status(await _request(bob, f"Content-Length: {1 << 40}", b"IOTA")) == 400
        assert _status(await _request(bob, "Transfer-Encoding: chunked", b"4\r\nIOTA\r\n")) == 400
        assert _status(await _request(bob, "Content-Length: 3", b"IOT")) == 400
        assert not bob.kept


async def test_a_frame_signed_by_another_than_it_names_is_refused() -> None:
    async with receiver() as (alice, bob):
        frame = signed_frame(frame_name(), alice.hotkey, bob.hotkey)
        at = head_size(frame.data)
        forged = frame.data[: at - 64] + STRANGER.sign(b"x") + frame.data[at:]
        assert _status(await _request(bob, f"Content-Length: {len(forged)}", forged)) == 400
        assert not bob.kept


async def test_another_payload_than_the_head_names_is_refused() -> None:
    async with receiver() as (alice, bob):
        data = signed_frame(frame_name(), alice.hotkey, bob.hotkey).data
        changed = data[:-1] + bytes([data[-1] ^ 1])
        assert _status(await _request(bob, f"Content-Length: {len(data)}", changed)) == 400
        assert not bob.kept
        assert _status(await _request(bob, f"Content-Length: {len(data)}", data)) == 200


async def test_somebody_elses_frame_may_be_replayed_and_changes_nothing() -> None:
    async with receiver() as (alice, bob):
        frame = signed_frame(frame_name(), alice.hotkey, bob.hotkey)
        await alice.transport.send(frame, bob.hotkey.ss58)
        bob.kept.clear()
        answers = [await _request(bob, f"Content-Length: {len(frame.data)}", frame.data) for _ in range(3)]
        assert [_status(answer) for answer in answers] == [200] * 3
        assert not bob.kept


async def test_a_frame_that_drips_or_breaks_off_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_server, "HEAD_S", 0.3)
    async with receiver() as (alice, bob):
        data = signed_frame(frame_name(), alice.hotkey, bob.hotkey).data
        assert _status(await _request(bob, f"Content-Length: {len(data)}", data, drip_s=0.01)) == 503
        _, writer = await asyncio.open_connection("127.0.0.1", bob.port)
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode())
        writer.write(data[:500])
        await writer.drain()
        writer.transport.abort()
        assert not bob.kept
        frame = signed_frame(frame_name(), alice.hotkey, bob.hotkey)
        assert (await alice.transport.send(frame, bob.hotkey.ss58)).kept is not None


async def test_the_log_names_each_case_of_a_hostile_sender_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with receiver() as (alice, bob):
        data = signed_frame(frame_name(), alice.hotkey, bob.hotkey).data
        changed = data[:-1] + bytes([data[-1] ^ 1])
        for _ in range(2):
            await _request(bob, f"Content-Length: {len(data)}", changed)
            await _request(bob, f"Content-Length: {len(data)}", b"x" * len(data))
        for _ in range(20):
            await _request(bob, f"Content-Length: {len(data)}", data)
        bob.expects = lambda header: Expectation.WRONG
        for number in (1, 2):
            other = signed_frame(frame_name(microbatch=number), alice.hotkey, bob.hotkey).data
            await _request(bob, f"Content-Length: {len(other)}", other)
    of_alice = [r.getMessage() for r in caplog.records if alice.hotkey.ss58 in r.getMessage()]
    wanted = ["not what they should be", "again and again", "are not expected"]
    assert [text for text, said in zip(wanted, of_alice, strict=True) if text in said] == wanted
    assert len([r for r in caplog.records if "127.0.0.1" in r.getMessage()]) == 1


async def test_strangers_that_flood_the_door_keep_no_peer_out() -> None:
    """Anybody can sign frames for steps that no plan has named yet: they wait, within bounds of their own."""
    async with receiver() as (alice, bob):
        bob.expects = lambda header: (
            Expectation.EXPECTED if header.sender == alice.hotkey.ss58 else Expectation.EARLY
        )
        strangers = [Hotkey.from_seed(bytes([3, n]) * 16) for n in range(40)]
        floods = [
            asyncio.create_task(
                _request(bob, f"Content-Length: {len(frame.data)}", frame.data[: head_size(frame.data)])
            )
            for n, stranger in enumerate(strangers)
            for frame in (signed_frame(frame_name(9, n * 8 + k), stranger, bob.hotkey) for k in range(8))
        ]
        await asyncio.sleep(0.5)
        frame = signed_frame(frame_name(), alice.hotkey, bob.hotkey)
        began = time.monotonic()
        assert (await alice.transport.send(frame, bob.hotkey.ss58)).kept is not None
        assert time.monotonic() - began < 1
        for flood in floods:
            flood.cancel()
        await asyncio.gather(*floods, return_exceptions=True)


async def test_a_peer_whose_address_changes_is_found_again() -> None:
    async with receiver() as (alice, bob):
        alice.book.contacts[bob.hotkey.ss58] = contact_of(bob.hotkey, 9).contact
        first, *later = (signed_frame(frame_name(microbatch=n), alice.hotkey, bob.hotkey) for n in range(40))
        assert (await alice.transport.send(first, bob.hotkey.ss58)).kept is None
        assert alice.book.doubted == [bob.hotkey.ss58]
        alice.knows(bob)
        alice.chooser.forget(bob.hotkey.ss58)
        for frame in later:
            await alice.transport.send(frame, bob.hotkey.ss58)
            await asyncio.sleep(0.1)
            if bob.kept:
                return
        pytest.fail("no frame goes to the new address")


async def test_a_peer_may_time_the_round_trip_and_not_ask_for_ever() -> None:
    async with receiver() as (alice, bob):
        assert 0 < await alice.link.round_trip(alice.book.contacts[bob.hotkey.ss58]) < 5
        url = f"http://127.0.0.1:{bob.port}{direct_server.HELLO}"
        async with HttpClient() as client:
            ends = []
            for _ in range(8):
                async with client.open("GET", url) as answer:
                    assert answer.status == 204
                    ends.append(answer.headers.get("Connection") == "close")
        assert ends == [False, False, False, True] * 2
