"""The iroh process: it may die, hang or be killed at any time, and the miner goes on."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from iota.wire import iroh_link
from iota.wire.iroh_link import IrohLink, LinkUnavailable
from iota.wire.iroh_options import IrohOptions
from iota.wire.transport import TransportError, Unreachable
from tests.support.doors import MemoryDoor, acknowledgement
from tests.support.frames import pushed
from tests.support.iroh_links import LOOPBACK, IrohEnd, contact_of, iroh_ends

HOLDER = """
import asyncio, sys
from iota.wire.iroh_link import IrohLink
from iota.wire.iroh_options import IrohOptions
from tests.support.doors import MemoryDoor

async def main():
    options = IrohOptions(bind=("127.0.0.1:0",))
    link = await IrohLink.open(bytes(range(32)), MemoryDoor(), lambda key: True, options)
    mapped = open("/proc/self/maps").read()
    print(link.pid, "iroh" in sys.modules, "libiroh" in mapped, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def _mid_transfer(sender: IrohEnd, receiver: IrohEnd) -> asyncio.Task[bytes]:
    receiver.door.opened.clear()
    pushing = asyncio.create_task(sender.link.push(pushed(payload=bytes(5_000_000)), receiver.contact))
    await receiver.door.until("asked", 1)
    return pushing


async def _push_until_it_works(sender: IrohEnd, receiver: IrohEnd) -> None:
    receiver.door.opened.set()
    frame = pushed(7, bytes(3_000_000))
    async with asyncio.timeout(30):
        while True:
            try:
                answer = await sender.link.push(frame, receiver.contact)
            except TransportError:
                await asyncio.sleep(0.1)
            else:
                assert answer == acknowledgement(frame.data)
                return


def _pid(end: IrohEnd) -> int:
    assert end.link.pid is not None
    return end.link.pid


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV], ids=str)
async def test_a_frame_fails_at_once_when_the_senders_process_dies_and_the_next_one_works(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    async with iroh_ends(2) as (sender, receiver):
        pushing = await _mid_transfer(sender, receiver)
        key = sender.link.contact().key
        with caplog.at_level(logging.WARNING):
            os.kill(_pid(sender), number)
            async with asyncio.timeout(10):
                with pytest.raises(Unreachable, match="iroh process has ended"):
                    await pushing
            await _push_until_it_works(sender, receiver)
        assert sender.link.contact() == sender.contact.iroh
        assert sender.link.contact().key == key
        assert sender.link.status.restarts == 1
        assert f"exit -{number.value}" in sender.link.status.last_end
        assert sum("iroh process has ended" in record.getMessage() for record in caplog.records) == 1


async def test_a_process_that_hangs_is_killed_and_started_again() -> None:
    async with iroh_ends(2, hang_s=2.0) as (sender, receiver):
        pushing = await _mid_transfer(sender, receiver)
        stopped = _pid(sender)
        os.kill(stopped, signal.SIGSTOP)
        async with asyncio.timeout(10):
            with pytest.raises(Unreachable, match="hangs"):
                await pushing
        await _push_until_it_works(sender, receiver)
        assert not psutil.pid_exists(stopped)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=str)
async def test_the_receivers_process_may_die_or_hang_too(number: signal.Signals) -> None:
    async with iroh_ends(2, hang_s=2.0, silent_s=4.0) as (sender, receiver):
        pushing = await _mid_transfer(sender, receiver)
        os.kill(_pid(receiver), number)
        async with asyncio.timeout(10):
            with pytest.raises(Unreachable):
                await pushing
        await _push_until_it_works(sender, receiver)
        assert len(receiver.door.kept) == 1
        assert not receiver.door.admitted


async def test_what_the_door_is_taking_is_kept_though_the_process_dies() -> None:
    async with iroh_ends(2, silent_s=4.0) as (sender, receiver):
        receiver.door.written.clear()
        pushing = asyncio.create_task(sender.link.push(pushed(payload=b"x" * 1000), receiver.contact))
        await receiver.door.until("taking", 1)
        os.kill(_pid(receiver), signal.SIGKILL)
        with pytest.raises(Unreachable):
            await pushing
        receiver.door.written.set()
        await receiver.until(lambda: bool(receiver.door.kept))
        assert not receiver.door.given_up
        await _push_until_it_works(sender, receiver)


async def test_signals_of_the_terminal_do_not_end_the_process() -> None:
    async with iroh_ends(2) as (sender, receiver):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(_pid(sender), number)
        assert os.getpgid(_pid(sender)) != os.getpgid(0)
        await _push_until_it_works(sender, receiver)
        assert sender.link.status.restarts == 0


def test_the_library_is_in_the_process_alone_which_ends_with_a_miner_that_is_killed(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        pid, *loaded = holder.stdout.readline().split()
        assert loaded == ["False", "False"]
        child = psutil.Process(int(pid))
    finally:
        holder.kill()
        holder.wait()
    child.wait(timeout=10)


async def test_a_port_that_is_taken_is_said_at_the_start() -> None:
    async with iroh_ends(1) as (first,):
        assert first.contact.iroh is not None
        with pytest.raises(LinkUnavailable, match="iroh cannot be used here"):
            await IrohLink.open(
                bytes(range(32)),
                MemoryDoor(),
                lambda key: True,
                IrohOptions(bind=first.contact.iroh.addresses),
            )


async def test_a_relay_that_cannot_be_reached_holds_up_nothing() -> None:
    async with iroh_ends(2, relays=("https://127.0.0.1:9",)) as (sender, receiver):
        assert receiver.contact.iroh.relay is None
        named = receiver.contact.iroh.model_copy(update={"relay": "https://127.0.0.1:9/"})
        receiver.contact = contact_of(named)
        await _push_until_it_works(sender, receiver)
        await sender.until(lambda: _connected(sender))
        assert sender.link.status.endpoint.peers[0].path == "direct"


@pytest.mark.parametrize(
    "wrong", [{"relays": ("no url",)}, {"public": ("nowhere",)}, {"bind": ("x:1",)}], ids=str
)
async def test_options_that_mean_nothing_are_said_at_the_start(wrong: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(LinkUnavailable, match=r"iroh cannot be used here, at UDP .*: \w"):
        await IrohLink.open(bytes(range(32)), MemoryDoor(), lambda key: True, IrohOptions(**wrong))


async def test_without_the_package_the_link_says_what_it_runs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(iroh_link.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LinkUnavailable, match="not installed"):
        await IrohLink.open(bytes(range(32)), MemoryDoor(), lambda key: True)


async def test_a_prepared_peer_is_dialled_ahead_and_again_after_a_restart() -> None:
    async with iroh_ends(2) as (one, other):
        one.link.prepare(other.contact)
        other.link.prepare(one.contact)
        await one.until(lambda: _connected(one) and _connected(other))
        os.kill(_pid(one), signal.SIGKILL)
        await one.until(lambda: one.link.status.restarts == 1)
        await one.until(lambda: _connected(one))
        path = one.link.status.endpoint.peers[0]
        assert (path.path, path.key) == ("direct", other.contact.iroh.key)


def _connected(end: IrohEnd) -> bool:
    endpoint = end.link.status.endpoint
    return endpoint is not None and bool(endpoint.peers)


async def test_an_idle_connection_that_nobody_prepared_is_closed() -> None:
    async with iroh_ends(2, idle_s=2.5) as (one, other):
        await _push_until_it_works(one, other)
        await one.until(lambda: _connected(one))
        await one.until(lambda: not _connected(one))
        await _push_until_it_works(one, other)


async def test_addresses_that_are_given_stand_in_the_contact() -> None:
    async with iroh_ends(1, public=("203.0.113.7:4433",)) as (end,):
        end.link.add_addresses(["198.51.100.9:1", "[2001:db8::1]:2"])
        addresses = end.link.contact().addresses
        assert addresses[:3] == ("203.0.113.7:4433", "198.51.100.9:1", "[2001:db8::1]:2")
        assert LOOPBACK.partition(":")[0] in addresses[3]


async def test_names_and_other_peoples_relays_are_not_dialled() -> None:
    async with iroh_ends(1) as (other,):
        one = await IrohLink.open(
            bytes(range(32)),
            MemoryDoor(),
            lambda key: True,
            IrohOptions(bind=(LOOPBACK,)),
            may_dial=lambda host: host != "127.0.0.1",
        )
        there = other.contact.iroh.model_copy(
            update={"addresses": ("localhost:4433",), "relay": "https://relay.example.org"}
        )
        assert not one.reaches(contact_of(there))
        assert not one.reaches(other.contact)
        assert one.reaches(contact_of(there.model_copy(update={"addresses": ("192.0.2.1:4433",)})))
        await one.close()
