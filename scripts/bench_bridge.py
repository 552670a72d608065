"""How soon watchers hear of a change: 1,000 streams of one orchestrator, whose process has one core.

The orchestrator is the product's server in a process of its own, on one core, with its journal on disk; the
watchers are one process on the other cores, with a socket each. The operator sets a public variable to the
time of the call, again and again. A delivery is from there, before the request is signed, until a watcher has
read the change: signature, journal and the other watchers are in it. `server_cpu_ms` is what a change costs
the server, which says more than deliveries do where others use the machine. JSON on stdout.

    python scripts/bench_bridge.py              # half a minute; wants two cores that nobody else uses
    python scripts/bench_bridge.py --smoke      # does it run at all; seconds
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from iota.client.bridge import BridgeClient
from iota.client.orchestrator import OrchestratorClient
from iota.system.open_files import most_open
from tests.support.bridge_server import Process
from tests.support.orchestrators import ORCHESTRATOR

NAME = "run/bench"
GOAL_MS = 100.0
"""Of the 99th percentile of deliveries."""
_SENT = re.compile(rb'"value":([0-9]+)')
_LIMIT_S = 60.0
"""For all deliveries of one change."""


def watch(url: str, watchers: int) -> None:
    """The watchers' process: a line once all have the snapshot, then one for each change: its delays in ms.

    Ends with its standard input.
    """
    assert most_open() > watchers + 64, "this process may not open so many sockets"
    at = urlsplit(url)
    waiting = selectors.DefaultSelector()
    request = f"GET /v1/bridge/stream?prefix={NAME} HTTP/1.1\r\nHost: {at.netloc}\r\n\r\n".encode()
    for _ in range(watchers):
        connection = socket.create_connection((at.hostname, at.port or 80))
        connection.sendall(request)
        waiting.register(connection, selectors.EVENT_READ)
    while True:
        delays: dict[int, list[float]] = {}
        heard = 0
        while heard < watchers:
            for key, _ in waiting.select(timeout=_LIMIT_S):
                received = key.fileobj.recv(1 << 16)  # type: ignore[union-attr]
                now = time.monotonic_ns()
                assert received, "a stream has ended"
                for sent in _SENT.findall(received):
                    delays.setdefault(int(sent), []).append((now - int(sent)) / 1e6)
                    heard += 1
        print(json.dumps([delay for each in delays.values() for delay in each]), flush=True)


async def measure(watchers: int, changes: int, pause_s: float) -> dict[str, Any]:
    """Deliveries of all changes to all watchers, in ms."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        async with Process(Path(folder) / "journal.db", {cores[0]}) as server:
            client = OrchestratorClient(ORCHESTRATOR, server.url, ORCHESTRATOR.ss58)
            async with client:
                bridge = BridgeClient(client)
                await bridge.set(NAME, 1)
                delays, writes, cpu_s = await _watched(bridge, server, watchers, changes, pause_s)
    return {
        "watchers": watchers,
        "changes": changes,
        "pause_s": pause_s,
        "server_cores": 1,
        "cores": len(cores),
        "deliveries": len(delays),
        "delivery_ms": {name: round(float(np.percentile(delays, q)), 1) for name, q in QUANTILES.items()},
        "acknowledged_ms": round(float(np.median(writes)), 1),
        "server_cpu_ms": round(1e3 * cpu_s / changes, 1),
        "goal_p99_ms": GOAL_MS,
    }


QUANTILES = {"p50": 50, "p90": 90, "p99": 99, "most": 100}


async def _watched(
    bridge: BridgeClient, server: Process, watchers: int, changes: int, pause_s: float
) -> tuple[list[float], list[float], float]:
    """The deliveries and how long each write took, in ms, and the server's CPU time meanwhile in seconds."""
    cores = sorted(os.sched_getaffinity(0))
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--watch", server.url, "--watchers", str(watchers),
        stdout=subprocess.PIPE, limit=1 << 24,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        os.sched_setaffinity(process.pid, set(cores[1:]) or set(cores))
        async with asyncio.timeout(_LIMIT_S):
            await process.stdout.readline()  # all have the snapshot
        began = _cpu_s(server.pid)
        delays: list[float] = []
        writes: list[float] = []
        for _ in range(changes):
            begun = time.monotonic_ns()
            await bridge.set(NAME, begun)
            writes.append((time.monotonic_ns() - begun) / 1e6)
            async with asyncio.timeout(_LIMIT_S):
                delays += json.loads(await process.stdout.readline())
            await asyncio.sleep(pause_s)
        cpu_s = _cpu_s(server.pid) - began
    finally:
        process.kill()
        await process.wait()
    return delays, writes, cpu_s


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--watchers", type=int, default=1000)
    parser.add_argument("--changes", type=int, default=200)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two changes")
    parser.add_argument("--json", type=Path, help="write the result here too")
    parser.add_argument("--smoke", action="store_true", help="20 watchers, 5 changes")
    parser.add_argument("--watch", metavar="URL", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.watch:
        watch(given.watch, given.watchers)
        return
    if given.smoke:
        given.watchers, given.changes, given.pause = 20, 5, 0.01
    found = asyncio.run(measure(given.watchers, given.changes, given.pause))
    text = json.dumps(found, indent=1)
    print(text)
    if given.json is not None:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
