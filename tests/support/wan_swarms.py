"""A swarm on an emulated internet: its servers are one host, and each miner is one with a line of its own."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from iota.swarm.options import SwarmOptions
from iota.swarm.processes import Program
from iota.swarm.programs import Programs
from tests.support.emulated_internet import Host
from tests.support.live_swarm import LiveSwarm
from tests.support.paced_engine import Pace
from tests.support.wan_miner import ENTRY, Order


@dataclass(frozen=True)
class HostedPrograms(Programs):
    """Programs whose servers listen on `address`."""

    address: str = ""

    def url(self, server: str) -> str:
        """Base URL of a server."""
        return f"http://{self.address}:{self.ports[server]}"

    def _address(self, server: str) -> tuple[object, ...]:
        return ("--host", self.address, "--port", self.ports[server])


class WanSwarm(LiveSwarm):
    """To be used by a process that is in the host `server` (`namespaces.enter`), as its servers then are.

    `hosts` are those of the miners by name; `flags` are more of their command lines, by name too.
    """

    def __init__(
        self,
        root: Path,
        options: SwarmOptions,
        server: Host,
        hosts: Mapping[str, Host],
        pace: Pace,
        *,
        overlap: bool = True,
        flags: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        super().__init__(root, options, in_order=True)
        self.server, self.hosts = server, dict(hosts)
        self.pace, self.overlap, self.flags = pace, overlap, dict(flags or {})

    def make_programs(self, ports: dict[str, int]) -> Programs:
        return HostedPrograms(self.run_dir, ports, threads=1, device="cpu", address=self.server.address)

    def nodes(self) -> list[Program]:
        return [self._in_its_host(program) for program in super().nodes()]

    def _in_its_host(self, program: Program) -> Program:
        order = Order(self.hosts[program.name].namespace, self.pace, self.overlap)
        arguments = (order.argument(), *program.arguments, *self.flags.get(program.name, ()))
        return dataclasses.replace(program, entry=ENTRY, arguments=arguments)


def frames_by_way(run: Path) -> Counter[str]:
    """Counts notices of frames in the journal of a run in `run`: `kept` by their receivers, and `stored`."""
    found: Counter[str] = Counter()
    with closing(sqlite3.connect(f"file:{run / 'journal.db'}?mode=ro", uri=True)) as db:
        for (text,) in db.execute("SELECT json FROM entries WHERE kind = 'exchanged'"):
            notices = json.loads(text)["frames"]
            found.update("stored" if notice.get("kept") is None else "kept" for notice in notices)
    return found


def step_ends(run: Path) -> list[float]:
    """When the last miner of a run in `run` ended each step, in seconds since the epoch, by step.

    From the receipts on the miners' disks; steps that not all have ended are left out.
    """
    ended: dict[int, list[float]] = {}
    files = sorted(run.glob("nodes/*/receipts.jsonl"))
    for file in files:
        written = file.read_bytes()
        for line in written[: written.rfind(b"\n")].splitlines()[1:]:  # the last may be half a line
            receipt = json.loads(line.partition(b" ")[2])
            if receipt["kind"] == "step":
                ended.setdefault(receipt["step"], []).append(receipt["ended"])
    return [max(times) for _, times in sorted(ended.items()) if len(times) == len(files)]
