"""How fast links move frames over loopback, in MB/s, and what CPU time that takes at each end.

Two processes, one for each miner, with links as the product opens them; the receiver's door keeps nothing and
checks nothing, so that the link alone is measured. JSON on stdout, one row for each link and number of frames
under way at once. All processes share this machine's cores.

    python scripts/bench_links.py                   # 2.2 MB frames by every link
    python scripts/bench_links.py --link iroh
    python scripts/bench_links.py --smoke           # does it run at all; seconds
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import struct
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import psutil

from iota.http import Reach
from iota.identity.peer_certificate import make_certificate
from iota.identity.signatures import SIGNATURE_BYTES
from iota.protocol.contacts import Contact, IrohContact
from iota.protocol.frames import FrameName, FrameNotice
from iota.wire.direct_link import DirectLink
from iota.wire.direct_server import serve_frames
from iota.wire.frame import FRAME_VERSION, MAGIC
from iota.wire.iroh_link import IrohLink
from iota.wire.iroh_options import IrohOptions
from iota.wire.link import Door, Link
from iota.wire.transport import OutgoingFrame

HOTKEY = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
FRAME_BYTES = 2_200_000
IN_FLIGHT = (1, 4)


class OpenDoor:
    """Takes every frame and forgets it."""

    async def admit(self, head: bytes, size: int) -> bytes | None:
        return None

    async def take(self, head: bytes, data: bytes | bytearray) -> bytes:
        return bytes(64)

    def give_up(self, head: bytes) -> None:
        """Nothing was kept."""


@dataclass(frozen=True)
class End:
    """One miner's end of a link."""

    link: Link
    contact: Contact
    close: Callable[[], Awaitable[None]]


async def open_iroh(door: Door, *, block_copies: bool = True) -> End:
    """An iroh link on loopback, without relays."""
    options = IrohOptions(bind=("127.0.0.1:0",), block_copies=block_copies)
    link = await IrohLink.open(secrets.token_bytes(32), door, lambda key: True, options)
    return End(link, _contact(link.contact()), link.close)


async def open_iroh_as_shipped(door: Door) -> End:
    """The same without the block copies of `iota.wire.iroh_buffers`."""
    return await open_iroh(door, block_copies=False)


async def open_direct(door: Door, *, tls: bool = False) -> End:
    """A direct link on loopback with its server."""
    context, certificate = make_certificate() if tls else (None, None)
    serving, stack = serve_frames(door, 1 << 30, "127.0.0.1", 0, context), AsyncExitStack()
    port = await stack.enter_async_context(serving)
    own = {"direct": (f"127.0.0.1:{port}",), "certificate": certificate}
    link = DirectLink(Reach(anywhere=True))
    stack.push_async_callback(link.close)
    return End(link, _contact(None).model_copy(update=own), stack.aclose)


async def open_direct_with_tls(door: Door) -> End:
    """The same over TLS."""
    return await open_direct(door, tls=True)


LINKS: dict[str, Callable[[Door], Awaitable[End]]] = {
    "direct": open_direct,
    "direct, TLS": open_direct_with_tls,
    "iroh": open_iroh,
    "iroh, buffers as shipped": open_iroh_as_shipped,
}
"""How each link is opened."""


def _contact(iroh: IrohContact | None) -> Contact:
    return Contact(run="ab" * 32, hotkey=HOTKEY, version=1, expires=time.time() + 3600, iroh=iroh)


def frame_of(size: int) -> OutgoingFrame:
    """A frame with `size` bytes of payload and a head that means nothing."""
    text = b'{"benchmark":true}' + b" " * 500
    data = struct.pack("<4sBH", MAGIC, FRAME_VERSION, len(text)) + text + bytes(SIGNATURE_BYTES)
    name = FrameName.model_validate(
        {"epoch": 0, "step": 0, "microbatch": 0, "attempt": 0, "stage": 0, "direction": "f"}
    )
    data += os.urandom(size)
    return OutgoingFrame(FrameNotice(name=name, digest="0" * 64, size=len(data)), data)


async def receive(name: str) -> None:
    """Be the receiver until stdin ends: says its contact, then the CPU time that it took."""
    end = await LINKS[name](OpenDoor())
    print(end.contact.model_dump_json(), flush=True)
    while await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(cpu_s()), flush=True)
    await end.close()


def cpu_s() -> float:
    """CPU seconds of this process and its children."""
    own = psutil.Process()
    return sum(sum(each.cpu_times()[:2]) for each in [own, *own.children(recursive=True)])


async def measure(name: str, frame: OutgoingFrame, frames: int) -> list[dict[str, Any]]:
    """Rows for one link."""
    receiver = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--receive", name, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    ask, said = receiver.stdin, receiver.stdout
    assert ask is not None
    assert said is not None
    end = await LINKS[name](OpenDoor())
    peer = Contact.model_validate_json(await said.readline())

    async def receiver_cpu_s() -> float:
        ask.write(b"\n")
        return float(await said.readline())

    rows = []
    await end.link.push(frame, peer)
    for in_flight in IN_FLIGHT:
        left = iter(range(frames))

        async def push_some(left: Any = left) -> None:
            for _ in left:
                await end.link.push(frame, peer)

        before, before_there, began = cpu_s(), await receiver_cpu_s(), time.perf_counter()
        await asyncio.gather(*(push_some() for _ in range(in_flight)))
        took, megabytes = time.perf_counter() - began, frames * len(frame.data) / 1e6
        rows.append(
            {
                "link": name,
                "frame_bytes": len(frame.data),
                "frames": frames,
                "in_flight": in_flight,
                "MB_per_s": round(megabytes / took, 1),
                "ms_per_frame": round(1e3 * took / frames, 2),
                "sender_cpu_ms_per_MB": round(1e3 * (cpu_s() - before) / megabytes, 2),
                "receiver_cpu_ms_per_MB": round(1e3 * (await receiver_cpu_s() - before_there) / megabytes, 2),
            }
        )
    await end.close()
    ask.close()
    await receiver.wait()
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--link", choices=LINKS, action="append", help="only this one; may be given again")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--bytes", type=int, default=FRAME_BYTES, help="payload of a frame")
    parser.add_argument("--smoke", action="store_true", help="a few frames")
    parser.add_argument("--receive", choices=LINKS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.receive:
        asyncio.run(receive(given.receive))
        return
    frames = 5 if given.smoke else given.frames
    rows = []
    for name in given.link or LINKS:
        few = frames if "shipped" not in name else max(4, frames // 20)
        rows += asyncio.run(measure(name, frame_of(given.bytes), few))
    print(json.dumps({"cores": os.cpu_count(), "load": os.getloadavg()[0], "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
