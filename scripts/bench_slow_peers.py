"""What slow peers cost a miner: 1,000 connections that stall, drip and crawl, beside one honest neighbour.

The miner's side is its own process, with the server, the door and the checks on disk that the product has. It
notes its memory, and how late its event loop wakes a task that sleeps 5 ms. An honest neighbour in another
process pushes frames at a set rate. Further processes keep the slow connections open, and open each anew when
the server ends it: heads that stall, requests that stall in their headers, bodies that drip, connections
that idle, and frames of neighbours that the plan names, which crawl. First without them, then with them, and
without again. JSON on stdout. All processes share this machine's cores: `lateness_*` says what a busy machine
does too, so look at it beside that without slow peers.

    python scripts/bench_slow_peers.py              # three minutes
    python scripts/bench_slow_peers.py --smoke      # does it run at all; seconds
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from iota.codec.shapes import payload_size
from iota.files import write_whole
from iota.http import Reach
from iota.identity.keys import Hotkey
from iota.protocol.frames import Direction, FrameName
from iota.spec import RunSpec
from iota.wire.arrivals import Arrivals
from iota.wire.direct_link import DirectLink
from iota.wire.direct_server import HELLO, PATH, serve_frames
from iota.wire.door import Doorway, FrameDoor
from iota.wire.expectation import Expectation
from iota.wire.frame import check_frame, head_size
from iota.wire.transport import OutgoingFrame, TransportError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.peer_ends import contact_of, signed_frame
from tests.support.small_spec import small_spec

SLEEP_S = 0.005
RECEIVER, HONEST = Hotkey.from_seed(b"\1" * 32), Hotkey.from_seed(b"\2" * 32)
CRAWLERS = [Hotkey.from_seed(bytes([3, n]) * 16) for n in range(16)]
"""Slow neighbours: as far as the door knows, as good as the honest one."""
PARTS = 2
"""Processes of slow peers."""


def spec_of(payload: int) -> RunSpec:
    """A run whose frames have `payload` bytes."""
    data = {"manifest": "0" * 64, "sequence_length": payload // 32, "sequences": 2}
    found: RunSpec = small_spec(data=data)
    assert payload_size(found) == payload, payload_size(found)
    return found


async def serve(payload: int) -> None:
    """Be the miner until stdin ends: a line with its port, then figures since the last one for each line."""
    spec, arrivals, doorway = spec_of(payload), Arrivals(16), Doorway()
    known = {HONEST.ss58, *(key.ss58 for key in CRAWLERS)}
    door = FrameDoor(
        spec,
        RECEIVER.sign,
        lambda header: Expectation.EXPECTED if header.sender in known else Expectation.WRONG,
        lambda: (0, 0),
        known.__contains__,
        arrivals,
    )
    doorway.open(door)
    late: list[float] = []
    memory: list[int] = []
    process = psutil.Process()
    with tempfile.TemporaryDirectory() as folder:

        def keep(data: bytes | bytearray) -> None:
            check_frame(data, spec)
            write_whole(Path(folder) / "frame", data)

        async def keep_all() -> None:
            async for arrived in arrivals.incoming():
                await asyncio.to_thread(keep, arrived.data)
                arrived.settle(None)

        async def watch() -> None:
            for number in count():
                began = time.perf_counter()
                await asyncio.sleep(SLEEP_S)
                late.append(time.perf_counter() - began - SLEEP_S)
                if number % 100 == 0:
                    memory.append(process.memory_info().rss)

        async with serve_frames(doorway, payload, "127.0.0.1", 0) as port:
            tasks = [asyncio.create_task(keep_all()), asyncio.create_task(watch())]
            print(port, flush=True)
            while await asyncio.to_thread(sys.stdin.readline):
                memory.append(process.memory_info().rss)
                connections = [c for c in process.net_connections("tcp") if c.status == "ESTABLISHED"]
                print(json.dumps(figures(late, memory, len(connections))), flush=True)
                late.clear()
                memory.clear()
            for task in tasks:
                task.cancel()


def figures(late: list[float], memory: list[int], connections: int) -> dict[str, Any]:
    """Of one phase. `rss_mb`: the mean of each quarter of it, and the most."""
    quarters = [memory[len(memory) * n // 4 : len(memory) * (n + 1) // 4] for n in range(4)]
    return {
        "lateness_p50_ms": round(1e3 * quantile(late, 0.5), 2),
        "lateness_p99_ms": round(1e3 * quantile(late, 0.99), 2),
        "lateness_max_ms": round(1e3 * max(late), 2),
        "rss_mb": [round(statistics.mean(each) / 1e6, 1) for each in quarters if each],
        "rss_max_mb": round(max(memory) / 1e6, 1),
        "connections": connections,
    }


def quantile(values: list[float], part: float) -> float:
    """The value below which that part of them is."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


async def push(port: int, payload: int, seconds: float, rate: float) -> dict[str, Any]:
    """The honest neighbour's figures: frames at `rate` a second, one at a time."""
    spec, took, failed = spec_of(payload), [], []
    link, peer = DirectLink(Reach(anywhere=True)), contact_of(RECEIVER, port).contact
    began, at = time.monotonic(), time.time_ns() // 1_000_000
    for number in count():
        if time.monotonic() - began > seconds:
            break
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        frame = signed_frame(_name(at + number), HONEST, RECEIVER, spec=spec)
        start = time.perf_counter()
        try:
            await link.push(frame, peer)
        except TransportError as error:
            failed.append(str(error))
        took.append(time.perf_counter() - start)
    await link.close()
    return {
        "frames_per_s": round(len(took) / (time.monotonic() - began), 2),
        "frame_p50_ms": round(1e3 * quantile(took, 0.5), 2),
        "frame_p99_ms": round(1e3 * quantile(took, 0.99), 2),
        "failed": failed,
    }


def _name(number: int) -> FrameName:
    fields = {"epoch": 0, "attempt": 0, "stage": 0, "direction": Direction.FORWARD}
    return FrameName.model_validate(
        {**fields, "step": number >> 20 & 0xFFFFF, "microbatch": number & 0xFFFFF}
    )


class SlowPeers:
    """Connections that are kept open as long as the server lets them, each opened anew after it."""

    def __init__(self, port: int, payload: int, connections: int) -> None:
        self._port, self._spec, self._numbers = port, spec_of(payload), count(random.getrandbits(38))
        self._connections = connections

    async def run(self) -> None:
        """Until cancelled."""
        kinds = (self._stalled_headers, self._stalled_head, self._drip, self._idle, self._crawl)
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._connections):
                tasks.create_task(self._again(kinds[number % len(kinds)]))

    async def _again(self, kind: Any) -> None:
        await asyncio.sleep(random.uniform(0, 2))
        while True:
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                work = asyncio.create_task(kind(writer))
                try:
                    await reader.read()  # until the server ends it
                finally:
                    work.cancel()
                    writer.close()
            await asyncio.sleep(random.uniform(0.1, 1))

    def _request(self, size: int) -> bytes:
        return f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode()

    def _frame(self) -> bytes:
        name = _name(next(self._numbers))
        frame: OutgoingFrame = signed_frame(name, random.choice(CRAWLERS), RECEIVER, spec=self._spec)
        return frame.data

    async def _stalled_headers(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST /v1/frames HTTP/1.1\r\nHost: ")

    async def _stalled_head(self, writer: asyncio.StreamWriter) -> None:
        writer.write(self._request(payload_size(self._spec) + 500) + self._frame()[:300])

    async def _drip(self, writer: asyncio.StreamWriter) -> None:
        frame = self._frame()
        writer.write(self._request(len(frame)))
        for byte in frame:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    async def _idle(self, writer: asyncio.StreamWriter) -> None:
        writer.write(f"GET {HELLO} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    async def _crawl(self, writer: asyncio.StreamWriter) -> None:
        frame = self._frame()
        start = head_size(frame)
        writer.write(self._request(len(frame)) + frame[:start])
        for at in range(start, len(frame), 64):
            writer.write(frame[at : at + 64])
            await asyncio.sleep(0.2)


async def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All phases."""
    server = await _role("--serve", given)
    assert server.stdin is not None
    assert server.stdout is not None
    port, rows = int(await server.stdout.readline()), {}
    for phase in ("quiet", "slow peers", "quiet again"):
        print(phase, file=sys.stderr, flush=True)
        slow = [await _role("--slow", given, port) for _ in range(PARTS)] if phase == "slow peers" else []
        await asyncio.sleep(given.settle if slow else 1)
        server.stdin.write(b"\n")
        await server.stdout.readline()  # what came before counts for nothing
        honest = await _role("--push", given, port)
        said, _ = await honest.communicate()
        server.stdin.write(b"\n")
        rows[phase] = {**json.loads(await server.stdout.readline()), **json.loads(said)}
        for process in slow:
            process.kill()
            await process.wait()
    server.stdin.close()
    await server.wait()
    before, during, after = (rows[phase] for phase in ("quiet", "slow peers", "quiet again"))
    rss = during["rss_mb"]
    return {
        "payload": given.payload,
        "wanted_connections": given.connections,
        "speed": round(2 * during["frames_per_s"] / (before["frames_per_s"] + after["frames_per_s"]), 3),
        "rss_growth": round(rss[-1] / rss[1], 3),
        "phases": rows,
    }


async def _role(role: str, given: argparse.Namespace, port: int = 0) -> asyncio.subprocess.Process:
    arguments = [
        role,
        "--port",
        port,
        "--payload",
        given.payload,
        "--connections",
        given.connections // PARTS,
    ]
    arguments += ["--seconds", given.seconds, "--rate", given.rate]
    return await asyncio.create_subprocess_exec(
        sys.executable, __file__, *map(str, arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=1000)
    parser.add_argument("--payload", type=int, default=1 << 18, help="bytes of a frame")
    parser.add_argument("--rate", type=float, default=4.0, help="frames a second of the honest neighbour")
    parser.add_argument("--seconds", type=float, default=40.0, help="of each phase")
    parser.add_argument("--settle", type=float, default=40.0, help="seconds before slow peers are measured")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    for role in ("--serve", "--slow", "--push"):
        parser.add_argument(role, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.smoke:
        given.connections, given.seconds, given.settle = 50, 3.0, 3.0
    if given.serve:
        gc.collect()
        gc.freeze()  # as `mine` does
        asyncio.run(serve(given.payload))
    elif given.slow:
        os.nice(10)  # they are other machines
        asyncio.run(SlowPeers(given.port, given.payload, given.connections).run())
    elif given.push:
        print(json.dumps(asyncio.run(push(given.port, given.payload, given.seconds, given.rate))))
    else:
        print(json.dumps(asyncio.run(measure(given)), indent=1))


if __name__ == "__main__":
    main()
