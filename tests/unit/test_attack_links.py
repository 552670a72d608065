"""What members and strangers might try on a miner's links, and what that comes to."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast

import pytest
from pydantic import ValidationError

from iota.http import AddressRefused, Reach, UploadPace
from iota.http.connections import ConnectionGuard
from iota.http.sources import source_of
from iota.protocol.contacts import MAX_DIRECT, Contact, IrohContact
from iota.protocol.frames import FrameName
from iota.spec import Pipeline
from iota.wire import direct_server
from iota.wire.direct_link import DirectLink
from iota.wire.expectation import Expectation
from iota.wire.frame import head_size
from iota.wire.iroh_connections import Connections
from iota.wire.iroh_link import IrohLink, anywhere
from iota.wire.iroh_options import IrohOptions
from iota.wire.iroh_pipe import Kind
from iota.wire.iroh_status import EndpointStatus
from iota.wire.iroh_tasks import Tasks
from iota.wire.link import DoorRefused, Refusal
from iota.wire.peer_transport import PeerTransport
from iota.wire.transport import Unreachable
from iota.wire.troubles import Troubles
from miner.core.effects import RunOp
from miner.core.facts import FrameArrived, OpBad, OpDone
from miner.core.inputs import MAX_BAD, MAX_BAD_OF_ONE
from orchestrator.coordinator.denials import MAX_DENIED
from tests.support.doors import MemoryDoor
from tests.support.frames import frame_name
from tests.support.peer_ends import contact_of, open_end, signed_frame
from tests.support.plans import share_of, whole_plan
from tests.support.pushed import activations, gradient, header_of, push, ready
from tests.support.replica_cores import FIRST, LAST, ME, ended, hear, made, training
from tests.support.virtual_runs import tiny_spec


@pytest.mark.parametrize(
    "address", ["192.0.2.1:99999", "[....]:80", "a..b:70000", "[::1.2.3.999]:1", "192.0.2.1:0"]
)
async def test_an_address_that_is_none_sends_frames_by_the_store_and_ends_nobody(address: str) -> None:
    shelf: dict[FrameName, bytes] = {}
    async with open_end(1, shelf) as alice, open_end(2, shelf) as bob:
        contact = contact_of(bob.hotkey, 9).contact.model_copy(update={"direct": (address,)})
        alice.book.contacts[bob.hotkey.ss58] = contact
        frame = signed_frame(frame_name(), alice.hotkey, bob.hotkey)
        assert await alice.transport.send(frame, bob.hotkey.ss58) == frame.notice
        assert list(shelf) == [frame.notice.name]


@pytest.mark.parametrize("tls", [False, True])
async def test_connections_of_many_addresses_leave_a_miner_its_files(
    monkeypatch: pytest.MonkeyPatch, tls: bool
) -> None:
    """Without a bound for all together, some hundred strangers' connections use up what a process may open,
    and the next frame that is to be written ends it."""
    monkeypatch.setattr(direct_server, "MAX_CONNECTIONS", 8)
    async with open_end(1, {}, tls=tls) as alice:
        opened = [await asyncio.open_connection("127.0.0.1", alice.port) for _ in range(12)]
        closed = 0
        for reader, _ in opened:
            with suppress(TimeoutError, ConnectionResetError):
                async with asyncio.timeout(0.1):
                    closed += await reader.read(1) == b""
                    continue
            closed += reader.exception() is not None
        for _, writer in opened:
            writer.close()
        assert closed == 4


async def test_tls_connections_that_break_off_take_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(direct_server, "MAX_CONNECTIONS", 8)
    shelf: dict[FrameName, bytes] = {}
    async with open_end(1, shelf) as alice, open_end(2, shelf, tls=True) as bob:
        for sent in (b"", b"x" * 100, b"\x16\x03\x01\x02\x00\x01") * 8:
            _, writer = await asyncio.open_connection("127.0.0.1", bob.port)
            writer.write(sent)
            await asyncio.sleep(0.01)
            writer.close()
            await asyncio.sleep(0.01)
        alice.knows(bob)
        frame = signed_frame(frame_name(), alice.hotkey, bob.hotkey)
        assert (await alice.transport.send(frame, bob.hotkey.ss58)).kept is not None


class _Transport(asyncio.Transport):
    aborted = False

    def abort(self) -> None:
        self.aborted = True


async def test_who_has_an_ipv6_network_is_one_source_of_connections() -> None:
    assert source_of("2001:db8::1") == source_of("2001:db8::ffff:2") != source_of("2001:db8:0:1::1")
    assert source_of("::ffff:192.0.2.1") != source_of("::ffff:192.0.2.2")
    guard = ConnectionGuard(10.0, 2, 100)
    assert [guard.opened(_Transport(), f"2001:db8::{n}") for n in range(1, 5)] == [True, True, False, False]


def test_who_pushes_nan_again_and_again_must_store_its_frames() -> None:
    """Else it stores something better each time, and uses up what its receiver may deny."""
    count = MAX_BAD_OF_ONE + 1
    spec = tiny_spec(
        stages=3, replicas=1, epochs=1, steps=1, microbatches=count, pipeline=Pipeline.SYNC, credit=count
    )
    core = training(spec=spec)
    hear(core, share_of(whole_plan((FIRST, ME, LAST), count), ME))
    for index in range(MAX_BAD_OF_ONE):
        assert core.expects(header_of(activations(index), spec=spec)) is Expectation.EXPECTED
        [op] = [effect.op for effect in push(core, activations(index)) if isinstance(effect, RunOp)]
        ended(core, OpBad(op))
        hear(core, ready(activations(index), content=1))
        core.take(FrameArrived(activations(index)))
        ended(core, OpDone(op, made(core, index)))
    assert core.expects(header_of(activations(MAX_BAD_OF_ONE), spec=spec)) is Expectation.WRONG
    assert core.expects(header_of(gradient(), LAST, spec=spec)) is Expectation.EXPECTED
    assert 2 * MAX_BAD < MAX_DENIED


async def test_made_up_senders_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Anybody can sign heads with as many keys as they like."""
    caplog.set_level(logging.INFO)
    troubles = Troubles(logging.getLogger("test"))
    for number in range(1000):
        troubles.name(f"peer {number}", "not expected", "said")
    troubles.name("a neighbour", "garbage", "said")
    assert len(caplog.records) == 65


async def test_a_receiver_whose_refusals_differ_is_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    numbers = count()
    refusals = (DoorRefused(Refusal.MALFORMED, f"{'x' * next(numbers)}") for _ in count())

    async def refuse(head: bytes, size: int) -> bytes | None:
        raise next(refusals)

    async with open_end(1, {}) as alice, open_end(2, {}) as bob:
        alice.knows(bob)
        monkeypatch.setattr(bob.doorway, "admit", refuse)
        for number in range(3):
            frame = signed_frame(frame_name(microbatch=number), alice.hotkey, bob.hotkey)
            assert (await alice.transport.send(frame, bob.hotkey.ss58)).kept is None
    assert len([r for r in caplog.records if "goes another way" in r.getMessage()]) == 1


async def test_a_refusal_of_the_receiver_does_not_end_the_tries_of_an_outage_of_the_store(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The store is tried first where it is the faster one, and is away; the receiver refuses."""

    async def away(frame: object, to: object) -> None:
        raise Unreachable("the store is away")

    async with open_end(1, {}) as alice, open_end(2, {}) as bob:
        alice.knows(bob)
        bob.expects = lambda header: Expectation.WRONG
        transport = cast(PeerTransport, alice.transport)
        monkeypatch.setattr(transport.way_by_store, "send", away)
        for _ in range(9):  # the link that refuses is left for the store
            frame = signed_frame(frame_name(), alice.hotkey, bob.hotkey)
            with pytest.raises(Unreachable):
                await transport.send(frame, bob.hotkey.ss58)


@dataclass
class _Child:
    """What the iroh process was told, and what it says."""

    status: EndpointStatus | None = None
    told: list[tuple[Kind, Any]] = field(default_factory=list)

    def tell(self, kind: Kind, value: Any) -> None:
        self.told.append((kind, value))


async def _link(child: _Child) -> IrohLink:
    link = IrohLink(bytes(32), MemoryDoor(), lambda key: True, IrohOptions(), anywhere, UploadPace(None))
    link._child = cast(Any, child)
    return link


def _iroh_contact(hotkey: str, key: int) -> Contact:
    iroh = IrohContact(key=f"{key:064x}", addresses=("192.0.2.1:7",))
    return Contact(run="ab" * 32, hotkey=hotkey, version=key, expires=2e9, iroh=iroh)


async def test_a_member_with_a_new_key_each_minute_has_one_prepared_connection() -> None:
    """128 of them would leave no room for anybody else's connections."""
    child = _Child()
    link = await _link(child)
    link.prepare(_iroh_contact(LAST, 2))
    for key in (1, 2, 3):
        link.prepare(_iroh_contact(FIRST, key))
    told = [(int(to["key"], 16), to["leave"]) for _, to in child.told]
    assert told == [(2, None), (1, None), (2, f"{1:064x}"), (3, None)], "key 2 is another member's too"


async def test_an_iroh_process_that_talks_nonsense_does_not_end_the_publication_of_contacts() -> None:
    peers = [
        {"key": f"{n:064x}", "path": "direct", "address": "", "rtt_ms": 1, "sees": f"203.0.113.{n // 2}:1"}
        for n in range(40)
    ]
    said = {
        "key": "ab" * 32,
        "bound": [],
        "addresses": ["192.0.2.9:1", "x"],
        "relay": "https:///",
        "peers": peers,
    }
    contact = (await _link(_Child(EndpointStatus.model_validate(said)))).contact()
    assert contact is not None
    assert contact.relay is None
    assert "192.0.2.9:1" in contact.addresses, "peers that agree on false addresses do not push out its own"
    assert len(contact.addresses) < MAX_DIRECT
    for nonsense in ({"key": "no key"}, {"relay": "x"}, {"peers": peers * 100}):
        with pytest.raises(ValidationError):
            EndpointStatus.model_validate(said | nonsense)


async def test_a_name_that_a_proxy_would_resolve_is_not_dialled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy may stand in a network with services that no stranger is to reach."""
    link = DirectLink(Reach())
    contact = _iroh_contact(FIRST, 1).model_copy(update={"direct": ("store.internal:80", "[::1.2.3.999]:1")})
    assert link.reaches(contact)
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.internal:3128")
    assert not link.reaches(contact)
    assert link.reaches(contact.model_copy(update={"direct": ("9.9.9.9:80",)}))


@pytest.mark.parametrize("address", ["224.0.0.1", "ff02::1", "::ffff:224.0.0.1"])
def test_a_group_of_machines_is_dialled_by_nobody_on_a_public_network(address: str) -> None:
    reach = Reach()
    reach.orchestrator_at("9.9.9.9")
    with pytest.raises(AddressRefused):
        reach.check(address)


@pytest.mark.parametrize(
    "request_", [b"GET /v1/hello HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]
)
async def test_requests_in_a_row_that_bring_no_frame_end_their_connection(request_: bytes) -> None:
    """Each takes the event loop 0.1 ms, and a stranger sends as many as the line takes."""
    async with open_end(1, {}) as alice:
        reader, writer = await asyncio.open_connection("127.0.0.1", alice.port)
        writer.write(request_ * 50)
        with suppress(ConnectionError):
            async with asyncio.timeout(5):
                answers = await reader.read()
                assert answers.count(b"HTTP/1.1 ") <= 4
        writer.close()


async def test_one_source_opens_connections_at_a_rate() -> None:
    guard = ConnectionGuard(10.0, 2, 100, rate=0.001)
    for expected in (True, True, False):
        transport = _Transport()
        assert guard.opened(transport, "192.0.2.1") is expected
        guard.closed(transport, "192.0.2.1")
    assert guard.opened(_Transport(), "192.0.2.2")


async def test_what_is_something_else_than_its_head_says_is_not_read_for_ever() -> None:
    """A neighbour would take its receiver's line with one name that the plan gives it."""
    async with open_end(1, {}) as alice, open_end(2, {}) as bob:
        data = signed_frame(frame_name(), alice.hotkey, bob.hotkey).data
        head, spoiled = data[: head_size(data)], data[:-1] + bytes([data[-1] ^ 1])
        for _ in range(3):
            assert await bob.doorway.admit(head, len(data)) is None
            with pytest.raises(DoorRefused, match="malformed"):
                await bob.doorway.take(head, spoiled)
        with pytest.raises(DoorRefused, match="not-expected"):
            await bob.doorway.admit(head, len(data))
        other = signed_frame(frame_name(microbatch=1), alice.hotkey, bob.hotkey).data
        assert await bob.doorway.admit(other[: head_size(other)], len(other)) is None


async def test_a_fault_of_a_link_ends_no_life(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A peer that finds one would else end each miner that sends to it."""

    async def fail(*_: object) -> bytes:
        raise RuntimeError("something that nobody thought of")

    shelf: dict[FrameName, bytes] = {}
    async with open_end(1, shelf) as alice, open_end(2, shelf) as bob:
        alice.knows(bob)
        monkeypatch.setattr(alice.link, "push", fail)
        frames = [signed_frame(frame_name(microbatch=n), alice.hotkey, bob.hotkey) for n in range(2)]
        for frame in frames:
            assert await alice.transport.send(frame, bob.hotkey.ss58) == frame.notice
        assert len(shelf) == 2
    assert len([r for r in caplog.records if r.levelno == logging.CRITICAL]) == 1


class _Incoming:
    """An iroh connection whose handshake never ends."""

    def __init__(self, source: str) -> None:
        self.source, self.taken = source, False

    async def remote_addr(self) -> str:
        return self.source

    async def remote_addr_validated(self) -> bool:
        return True

    async def ignore(self) -> None:
        pass

    async def accept(self) -> None:
        self.taken = True
        await asyncio.Event().wait()


async def test_handshakes_that_one_source_never_ends_leave_room_for_others() -> None:
    tasks = Tasks()
    nobody = cast(Any, None)
    connections = Connections(
        nobody, IrohOptions(), tasks, serve=nobody, is_member=nobody, note=lambda *_: None
    )
    flood = [_Incoming("192.0.2.1") for _ in range(20)]
    honest = _Incoming("192.0.2.2")
    for incoming in (*flood, honest):
        await connections._look_at(cast(Any, incoming))
        await asyncio.sleep(0)
    assert sum(each.taken for each in flood) == 8
    assert honest.taken
    for task in list(tasks._running):
        task.cancel()
