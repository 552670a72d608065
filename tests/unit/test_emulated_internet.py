"""Hosts on an emulated internet, through their own kernels."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from ipaddress import ip_address

import pytest

from tests.support.emulated_internet import MISSING, PER_MBPS, Cut, EmulatedInternet, Host, Nat, Shape

pytestmark = pytest.mark.skipif(MISSING is not None, reason=f"an emulated internet {MISSING}")
WAIT_S = 10.0
_UDP_SEGMENT = 103
"""From <linux/udp.h>."""
SILENT_S = 0.3
"""What has not come over a line without delay by then does not come."""


def opened(host: Host, kind: socket.SocketKind, port: int = 0) -> socket.socket:
    """A socket in `host`, bound to all its addresses."""
    with host.inside():
        found = socket.socket(socket.AF_INET, kind)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    found.setblocking(False)
    found.bind(("", port))
    return found


def listening(host: Host, port: int = 8000) -> socket.socket:
    found = opened(host, socket.SOCK_STREAM, port)
    found.listen()
    return found


async def connected(host: Host, address: str, server: socket.socket) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection from `host` to port 8000. Raises OSError, TimeoutError."""
    loop, client = asyncio.get_running_loop(), opened(host, socket.SOCK_STREAM)
    try:
        async with asyncio.timeout(WAIT_S):
            await loop.sock_connect(client, (address, 8000))
            return client, (await loop.sock_accept(server))[0]
    except BaseException:
        client.close()
        raise


async def reached(host: Host, address: str) -> bool:
    """Whether a packet to port 8000 is answered at all."""
    loop, client = asyncio.get_running_loop(), opened(host, socket.SOCK_STREAM)
    with client, suppress(TimeoutError):
        async with asyncio.timeout(SILENT_S):
            await loop.sock_connect(client, (address, 8000))
            return True
    return False


async def heard(of: socket.socket, within_s: float = WAIT_S) -> tuple[bytes, tuple[str, int]] | None:
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            return await asyncio.get_running_loop().sock_recvfrom(of, 100)
    return None


async def punched(of: socket.socket, seen: tuple[str, int]) -> bool:
    """Whether a peer is heard, while this one sends to where it was seen, then to where it was heard from."""
    loop, heard_from = asyncio.get_running_loop(), None
    for _ in range(15):
        await loop.sock_sendto(of, b"hello", heard_from or seen)
        if (found := await heard(of, 0.02)) is not None:
            heard_from = found[1]
    return heard_from is not None


async def moved(source: socket.socket, target: socket.socket, size: int) -> float:
    """Seconds that `size` bytes take."""
    loop, began, buffer = asyncio.get_running_loop(), time.monotonic(), bytearray(1 << 18)
    sending = asyncio.create_task(loop.sock_sendall(source, bytes(size)))
    while size:
        size -= await loop.sock_recv_into(target, buffer)
    await sending
    return time.monotonic() - began


async def test_tcp_goes_out_through_nats_and_not_in() -> None:
    async with EmulatedInternet() as internet:
        server = await internet.host("server")
        server_socket = listening(server)
        for kind in (Nat.FULL_CONE, Nat.PORT_RESTRICTED, Nat.SYMMETRIC, Nat.FIREWALL):
            home = await internet.host(kind.name, behind=kind)
            client, accepted = await connected(home, server.address, server_socket)
            assert accepted.getpeername()[0] == home.public_address
            assert ip_address(home.address).is_global is (kind is Nat.FIREWALL)
            await moved(client, accepted, 300_000)
            await moved(accepted, client, 300_000)
            inner = listening(home)
            assert not await reached(server, home.public_address)
            if kind is not Nat.FIREWALL:
                await home.box.forward(home, 8000)
                assert await reached(server, home.public_address)
            for each in (client, accepted, inner):
                each.close()
        server_socket.close()


@pytest.mark.parametrize(
    ("kinds", "passes"),
    [
        ((Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED), True),
        ((Nat.FULL_CONE, Nat.SYMMETRIC), True),
        ((Nat.SYMMETRIC, Nat.SYMMETRIC), False),
        ((Nat.PORT_RESTRICTED, Nat.SYMMETRIC), False),
    ],
    ids=lambda value: str(value) if isinstance(value, bool) else "-".join(kind.name for kind in value),
)
async def test_udp_holes_are_punched_between_cones_and_not_between_symmetric_nats(
    kinds: tuple[Nat, Nat], passes: bool
) -> None:
    async with EmulatedInternet() as internet:
        loop, server = asyncio.get_running_loop(), await internet.host("server")
        meeting = opened(server, socket.SOCK_DGRAM, 8000)
        peers = [await internet.host(f"peer-{n}", behind=kind) for n, kind in enumerate(kinds)]
        sockets = [opened(peer, socket.SOCK_DGRAM) for peer in peers]
        seen = []
        for each in sockets:
            await loop.sock_sendto(each, b"who am I", (server.address, 8000))
            answer = await heard(meeting)
            assert answer is not None
            seen.append(answer[1])
        met = await asyncio.gather(*(punched(s, to) for s, to in zip(sockets, reversed(seen), strict=True)))
        assert met == [passes, passes]
        for each in (meeting, *sockets):
            each.close()


async def test_udp_is_blocked_and_tcp_passes() -> None:
    async with EmulatedInternet() as internet:
        loop, server = asyncio.get_running_loop(), await internet.host("server")
        home = await internet.host("home", behind=Nat.FULL_CONE)
        await home.block_udp()
        server_socket, datagrams = listening(server), opened(server, socket.SOCK_DGRAM, 8000)
        mine = opened(home, socket.SOCK_DGRAM)
        await loop.sock_sendto(mine, b"x", (server.address, 8000))
        assert await heard(datagrams, SILENT_S) is None
        client, accepted = await connected(home, server.address, server_socket)
        await home.block_udp(False)
        await loop.sock_sendto(mine, b"y", (server.address, 8000))
        found = await heard(datagrams)
        assert found is not None
        assert found[0] == b"y"
        for each in (server_socket, datagrams, mine, client, accepted):
            each.close()


async def test_a_home_that_gets_another_address_begins_anew() -> None:
    async with EmulatedInternet() as internet:
        server = await internet.host("server")
        home = await internet.host("home", behind=Nat.PORT_RESTRICTED)
        server_socket, before = listening(server), home.public_address
        client, accepted = await connected(home, server.address, server_socket)
        await home.box.renumber()
        again, newer = await connected(home, server.address, server_socket)
        assert newer.getpeername()[0] == home.public_address != before
        accepted.send(b"x")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SILENT_S):
                await asyncio.get_running_loop().sock_recv(client, 1)
        for each in (server_socket, client, accepted, again, newer):
            each.close()


@pytest.mark.alone
async def test_a_line_has_its_rates_and_its_delay() -> None:
    async with EmulatedInternet() as internet:
        server = await internet.host("server")
        up, down = Shape(10 * PER_MBPS, delay_s=0.01), Shape(40 * PER_MBPS, delay_s=0.01)
        home = await internet.host("home", up=up, down=down)
        server_socket = listening(server)
        began = time.monotonic()
        client, accepted = await connected(home, server.address, server_socket)
        assert 0.018 < time.monotonic() - began < 0.1
        for source, target, mbps in ((client, accepted, 10), (accepted, client, 40)):
            await moved(source, target, 300_000)  # past the slow start
            size = int(0.7 * mbps * PER_MBPS)
            assert 0.8 < size / PER_MBPS / mbps / await moved(source, target, size) < 1.0  # headers take 3 %
        # connections share the line
        before = (await internet.counts())["hosts"]["home"]["bytes_up"]
        pairs = [await connected(home, server.address, server_socket) for _ in range(3)]
        began = time.monotonic()
        await asyncio.gather(*(moved(*pair, 400_000) for pair in pairs))
        seconds = time.monotonic() - began
        sent = (await internet.counts())["hosts"]["home"]["bytes_up"] - before
        assert 0.75 < sent / seconds / (10 * PER_MBPS) < 1.25  # the queue at the end is counted as sent
        for each in (client, accepted, server_socket, *(end for pair in pairs for end in pair)):
            each.close()


async def test_a_host_that_is_cut_off_hears_nothing_or_a_reset() -> None:
    async with EmulatedInternet() as internet:
        loop, server = asyncio.get_running_loop(), await internet.host("server")
        home = await internet.host("home", behind=Nat.PORT_RESTRICTED)
        server_socket = listening(server)
        client, accepted = await connected(home, server.address, server_socket)
        await home.cut(Cut.SILENT)
        assert not await reached(home, server.address)
        await home.restore()
        await moved(client, accepted, 1000)
        await server.cut(Cut.RESET)
        with pytest.raises(ConnectionRefusedError):
            await connected(home, server.address, server_socket)
        await loop.sock_sendall(client, b"x")
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(loop.sock_recv(client, 1), WAIT_S)
        for each in (client, accepted, server_socket):
            each.close()


async def test_a_lossy_line_delivers_all_of_tcp() -> None:
    lossy = Shape(20 * PER_MBPS, loss=0.02, reorder=0.01, jitter_s=0.001)
    async with EmulatedInternet() as internet:
        server = await internet.host("server")
        home = await internet.host("home", behind=Nat.SYMMETRIC, up=lossy, down=lossy)
        server_socket = listening(server)
        client, accepted = await connected(home, server.address, server_socket)
        sent, got, loop = os.urandom(1_000_000), b"", asyncio.get_running_loop()
        sending = asyncio.create_task(loop.sock_sendall(client, sent))
        async with asyncio.timeout(60):
            while len(got) < len(sent):
                got += await loop.sock_recv(accepted, 1 << 18)
            await sending
        assert got == sent
        assert (await internet.counts())["hosts"]["home"]["lost"] > 3
        for each in (client, accepted, server_socket):
            each.close()


@pytest.mark.parametrize("loss", [0.0, 0.2])
async def test_datagrams_that_the_kernel_hands_over_together_come_as_they_were(loss: float) -> None:
    """QUIC sends many datagrams in one call."""
    sent = b"".join(bytes([n]) * 1200 for n in range(30))
    async with EmulatedInternet() as internet:
        loop, server = asyncio.get_running_loop(), await internet.host("server")
        up = Shape(100 * PER_MBPS, delay_s=0.01, loss=loss)
        home = await internet.host("home", behind=Nat.PORT_RESTRICTED, up=up)
        datagrams, mine = opened(server, socket.SOCK_DGRAM, 8000), opened(home, socket.SOCK_DGRAM)
        mine.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, 1200)
        await loop.sock_sendto(mine, sent, (server.address, 8000))
        got = []
        while len(got) < 30 and (found := await heard(datagrams, SILENT_S if loss else WAIT_S)) is not None:
            got.append(found[0])
        assert [data[0] for data in got] == sorted({data[0] for data in got})
        assert len(got) == 30 if not loss else 10 < len(got) < 30
        for each in (datagrams, mine):
            each.close()


async def test_programs_run_in_a_host_and_end_with_the_internet() -> None:
    async with EmulatedInternet() as internet:
        host = await internet.host("host")
        assert host.address in await host.run(["ip", "-4", "addr"])
        assert host.address not in await asyncio.to_thread(subprocess.getoutput, "ip -4 addr")
        program = host.popen(["sleep", "1000"])
        assert program.poll() is None
    assert program.poll() == -signal.SIGKILL


_KILLED = """
import asyncio
from tests.support.emulated_internet import EmulatedInternet
async def main():
    async with EmulatedInternet() as internet:
        host = await internet.host("host")
        print(host.popen(["sleep", "1000"]).pid, internet._router.pid, flush=True)
        await asyncio.sleep(1000)
asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda how: how.name)
def test_nothing_is_left_of_an_internet_whose_process_is_killed(how: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _KILLED], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert owner.stdout is not None
    left = [int(number) for number in owner.stdout.readline().split()]
    assert len(left) == 2
    owner.send_signal(how)
    owner.wait(WAIT_S)
    end = time.monotonic() + WAIT_S
    while any(os.path.exists(f"/proc/{number}/ns") and _runs(number) for number in left):
        assert time.monotonic() < end
        time.sleep(0.01)
    owner.stdout.close()


def _runs(number: int) -> bool:
    try:
        with open(f"/proc/{number}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
