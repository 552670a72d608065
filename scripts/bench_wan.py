"""How much of its speed a swarm keeps when its miners are behind slow and far lines, like Orion's.

Every row is the same swarm of real processes on the same machine: three stages of one miner. Their engines
take a set time for each op (tests/support/paced_engine.py), so that none gets faster because another waits.
Each miner is a host of an emulated internet (tests/support/emulated_internet.py), with one line for all its
traffic to peers, store and orchestrator; these two are one host with a fast line. Only the lines differ from
row to row. `speed` is a row's tokens a second over those of the unshaped swarm on the same transport in this
run.

Rates and times are Orion-100B's, scaled. There a stage takes 2.7 s for a microbatch, and 147 MB go from stage
to stage, divided by the compression, 64 (2.3 MB). Here it takes --compute-s, by which all times of the lines
are scaled, and frames have another size, by which rates are scaled too: so transfer to compute is as there. A
row of another compression has slower lines for the same frames. Packets are scaled with the frames down to
`MIN_PACKET`, so that TCP's slow start takes about as many round trips (QUIC has no packets so small). Not
scaled are TCP's timers (200 ms before a retransmission), headers, control messages, and the machine's own
time for a frame.

Without overlap a miner begins no op before the frames of its earlier ones have arrived: that must miss the
goal. `of compute` is the share of their time in which miners compute, `by links` the share of frames that
did not go by the store. TCP's congestion control is cubic, as on most machines, or --congestion bbr, which
miners choose where the system lets them. Needs root and /dev/net/tun.

    python scripts/bench_wan.py --json wan.json --picture wan.svg     # all rows; 60 s each
    python scripts/bench_wan.py --only 100/100 --overlap on
    python scripts/bench_wan.py --smoke                               # does it run at all; 40 s
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import time
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from swarm_traces import op_seconds

from iota.codec.shapes import payload_size
from iota.settings import Ways
from iota.swarm.options import SwarmOptions
from iota.swarm.preparation import miner_names
from iota.swarm.run_dir import write_json

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.emulated_internet import CONGESTION, MISSING, PER_MBPS, EmulatedInternet, Shape
from tests.support.internet.namespaces import enter
from tests.support.paced_engine import Pace
from tests.support.wan_swarms import WanSwarm, frames_by_way, step_ends

STAGES = 3
ORION_COMPUTE_S = 2.7
"""Of a stage for a microbatch, forward and backward."""
ORION_BOUNDARY = 8_000 * 9_216 * 2
"""Bytes of a microbatch between two stages, uncompressed: tokens, width, bf16."""
ORION_COMPRESSION = 64
ROUND_TRIP_S = 0.04
PACKET = 1500
MIN_PACKET = 296
"""Linux announces segments of 256 bytes at least (`net.ipv4.route.min_adv_mss`)."""
MODEL = {"vocab_size": 257, "hidden_size": 32, "layers": STAGES, "heads": 2, "kv_heads": 1, "ffn_size": 32}
"""Narrow, so that the compute behind a frame is small, and its set time is kept on few cores."""
FLAGS = {"boundary": "identity", "ratio": 1, "wire": "fp32", "epochs": 1, "sequence_length": 128}
"""Frames of 128 bytes a token."""
WARM_UP, LAST = 2, 1
"""First and last steps that are not counted: the pipeline fills, and at the end nothing follows."""
LONGEST_S = 1200.0
LOOK_S = 0.25
MAX_BUSY = 0.9
"""Share of the machine above which paced ops are no longer sure to take their set time."""


@dataclass(frozen=True)
class Row:
    """The line of each miner, at Orion's scale; rates are megabits a second."""

    name: str
    up: float | None = None
    down: float | None = None
    round_trip_s: float = ROUND_TRIP_S
    """Between any two hosts: a quarter of it on each line and in each direction."""
    loss: float = 0.0
    """On every way from host to host."""
    compression: int = ORION_COMPRESSION
    goal: float | None = None

    def lines(self, scale: Scale) -> tuple[Shape, Shape]:
        """(up, down) of a miner."""
        share = scale.of_rates(self.compression)
        up, down = (None if mbps is None else mbps * PER_MBPS * share for mbps in (self.up, self.down))
        here = Shape(delay_s=self.round_trip_s / 4).slower(scale.of_times)
        return replace(here, rate=up, loss=self.loss), replace(here, rate=down)

    def backbone(self, scale: Scale) -> tuple[Shape, Shape]:
        """(up, down) of the store and the orchestrator."""
        here = Shape(delay_s=self.round_trip_s / 4).slower(scale.of_times)
        return replace(here, loss=self.loss), here


@dataclass(frozen=True)
class Scale:
    """What the bench is against Orion."""

    compute_s: float
    frame: int
    """Bytes."""

    @property
    def of_times(self) -> float:
        """Seconds here for each of Orion's."""
        return self.compute_s / ORION_COMPUTE_S

    def of_rates(self, compression: int) -> float:
        """Bytes a second here for each of Orion's at a compression."""
        return self.frame * compression / ORION_BOUNDARY / self.of_times

    @property
    def packet(self) -> int:
        """Bytes of a packet for each 1500 of Orion's."""
        return max(MIN_PACKET, min(PACKET, round(PACKET * self.frame * ORION_COMPRESSION / ORION_BOUNDARY)))


UNSHAPED = Row("unshaped", round_trip_s=0.0)
ORION = Row("856/1322", 856, 1322, goal=0.98)
ROWS = (
    ORION,
    Row("100/100", 100, 100, goal=0.95),
    Row("20/100", 20, 100),
    Row("856/1322 0.5% loss", 856, 1322, loss=0.005),
    Row("856/1322 150 ms", 856, 1322, round_trip_s=0.15),
    Row("856/1322 16x", 856, 1322, compression=16),
    Row("856/1322 4x", 856, 1322, compression=4),
    Row("856/1322 1x", 856, 1322, compression=1),
)


class BenchFailed(Exception):
    """A swarm did not reach its end."""


@dataclass(frozen=True)
class Column:
    """One way of training over the lines."""

    transport: str
    overlap: bool

    @property
    def name(self) -> str:
        """In tables."""
        return self.transport if self.overlap else f"{self.transport}, no overlap"

    def packet(self, scale: Scale) -> int:
        """Bytes of a packet; QUIC has none that are smaller."""
        return scale.packet if self.transport in ("store", "direct") else PACKET


class Bench:
    """Runs rows, one after another, on hosts that stay; within the network namespace of the servers."""

    def __init__(self, given: argparse.Namespace, internet: EmulatedInternet) -> None:
        self._given, self._internet = given, internet
        model = given.dir / "model.json"
        given.dir.mkdir(parents=True, exist_ok=True)
        write_json(model, MODEL)
        self._options = SwarmOptions.of(
            **FLAGS,
            model=str(model),
            stages=STAGES,
            replicas=1,
            steps_per_epoch=given.steps,
            microbatches=given.microbatches,
            sequences=given.sequences,
            values={"schedule": {"credit": given.credit}},
        )
        self.scale = Scale(given.compute_s, payload_size(self._options.draft_spec()))

    async def open(self) -> None:
        """Make the hosts."""
        self._server = await self._internet.host("server")
        enter(self._server.namespace)
        self._miners = {name: await self._internet.host(name) for name in miner_names(STAGES)}

    async def measure(self, row: Row, column: Column) -> dict[str, Any]:
        """One swarm, from its start to the end of its last step. Raises BenchFailed."""
        up, down = row.lines(self.scale)
        for host in self._miners.values():
            await host.shape(up, down)
        await self._server.shape(*row.backbone(self.scale))
        for host in (self._server, *self._miners.values()):
            await host.packets(column.packet(self.scale))
        folder = self._given.dir / f"{row.name} {column.name}".replace("/", "-").replace(" ", "-")
        shutil.rmtree(folder, ignore_errors=True)
        third = self.scale.compute_s / 3
        pace = Pace(forward_s=third, loss_s=3 * third, backward_s=2 * third, step_s=third / 10)
        flags = {
            name: ("--transport", column.transport, "--listen", f"{host.address}:0", *self._given.flags)
            for name, host in self._miners.items()
        }
        swarm = WanSwarm(
            folder, self._options, self._server, self._miners, pace, overlap=column.overlap, flags=flags
        )
        async with swarm:
            await self._ended(swarm.run_dir.root, WARM_UP)
            before = await self._now()
            ends = await self._ended(swarm.run_dir.root, self._given.steps)
            after = await self._now()
        return self._figures(row, column, swarm, ends, before, after)

    async def _ended(self, run: Path, steps: int) -> list[float]:
        """When each step ended, once there are so many."""
        deadline = time.monotonic() + LONGEST_S
        ends: list[float] = []
        while len(ends) < steps:
            if time.monotonic() > deadline:
                raise BenchFailed(
                    f"step {steps} did not end within {LONGEST_S:.0f} s; logs are in {run}/logs"
                )
            await asyncio.sleep(LOOK_S)
            ends = step_ends(run)
        return ends

    async def _now(self) -> dict[str, Any]:
        times = psutil.cpu_times()
        counts = await self._internet.counts()
        return {
            "at": time.monotonic(),
            "busy_s": times.user + times.nice + times.system,
            "router_s": counts["cpu_s"],
            "hosts": counts["hosts"],
        }

    def _figures(
        self,
        row: Row,
        column: Column,
        swarm: WanSwarm,
        ends: list[float],
        before: dict[str, Any],
        after: dict[str, Any],
    ) -> dict[str, Any]:
        ends = ends[WARM_UP - 1 : -LAST]
        seconds, wall = ends[-1] - ends[0], after["at"] - before["at"]
        data, steps = swarm.spec.data, len(ends) - 1
        tokens = steps * self._given.microbatches * data.sequences * data.sequence_length
        ideal_s = steps * self._given.microbatches * self.scale.compute_s
        ops = [op for each in op_seconds(swarm.run_dir.root).values() for op in each.items()]
        ways = frames_by_way(swarm.run_dir.root)
        pace = {"forward": self.scale.compute_s / 3, "loss": self.scale.compute_s}
        return {
            "row": asdict(row),
            "column": {"name": column.name, **asdict(column)},
            "tokens_per_second": tokens / seconds,
            "steps_s": [b - a for a, b in pairwise(ends)],
            "share_of_compute": ideal_s / seconds,
            "share_by_links": ways["kept"] / ways.total(),
            "longest_op": max(s / pace[kind] for kind, s in ops if kind in pace),
            "busy": (after["busy_s"] - before["busy_s"]) / wall / (psutil.cpu_count() or 1),
            "router": (after["router_s"] - before["router_s"]) / wall,
            "up_bytes_per_second": {
                name: (counts.get("bytes_up", 0) - before["hosts"][name].get("bytes_up", 0)) / wall
                for name, counts in after["hosts"].items()
            },
            "lines": after["hosts"],
        }


async def run(given: argparse.Namespace) -> dict[str, Any]:
    """Measure all that is asked for. Raises BenchFailed."""
    rows = [row for row in ROWS if given.only is None or row.name in given.only]
    overlaps = {"on": (True,), "off": (False,), "both": (True, False)}[given.overlap]
    results: list[dict[str, Any]] = []
    async with EmulatedInternet(congestion=given.congestion) as internet:
        bench = Bench(given, internet)
        await bench.open()
        for transport in given.transport:
            cases = [(UNSHAPED, Column(transport, True))]
            cases += [(row, Column(transport, overlap)) for row in rows for overlap in overlaps]
            own: list[dict[str, Any]] = []
            for row, column in cases:
                print(f"{row.name}, {column.name}", file=sys.stderr, flush=True)
                own.append(await bench.measure(row, column))
                own[-1]["speed"] = own[-1]["tokens_per_second"] / own[0]["tokens_per_second"]
                results.append(own[-1])
                found = {"scale": {**asdict(bench.scale), "packet": bench.scale.packet}, "results": results}
                if given.json is not None:
                    write_json(given.json, found)
    return found


def report(found: dict[str, Any]) -> str:
    """The table, in markdown."""
    scale = found["scale"]
    text = [
        f"{scale['compute_s']:.3f} s of compute a microbatch and stage, frames of {scale['frame']:,} bytes,"
        f" packets of {scale['packet']}",
        "",
        "| line | transport | tokens/s | speed | goal | of compute | by links | machine busy | router |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in found["results"]:
        row, goal = result["row"], result["row"]["goal"]
        text.append(
            f"| {row['name']} | {result['column']['name']} | {result['tokens_per_second']:,.0f}"
            f" | **{result['speed']:.3f}** | {goal or ''} | {result['share_of_compute']:.2f}"
            f" | {result['share_by_links']:.0%}"
            f" | {result['busy']:.0%} | {result['router']:.0%} |"
        )
    if any(result["busy"] > MAX_BUSY or result["longest_op"] > 1.1 for result in found["results"]):
        text.append("\n**Ops took longer than they were to, on a machine that was too busy: measure again.**")
    return "\n".join(text)


def draw(found: dict[str, Any], path: Path) -> None:
    """A picture of the speeds."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shaped = [result for result in found["results"] if result["row"]["name"] != UNSHAPED.name]
    names = list(dict.fromkeys(result["row"]["name"] for result in shaped))
    columns = list(dict.fromkeys(result["column"]["name"] for result in shaped))
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes, width = figure.add_subplot(), 0.8 / len(columns)
    for number, column in enumerate(columns):
        own = [result for result in shaped if result["column"]["name"] == column]
        at = [names.index(result["row"]["name"]) + (number + 0.5) * width - 0.4 for result in own]
        bars = axes.bar(at, [result["speed"] for result in own], width, label=column)
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    for place, name in enumerate(names):
        goal = next(result["row"]["goal"] for result in shaped if result["row"]["name"] == name)
        if goal is not None:
            axes.plot([place - 0.45, place + 0.45], [goal, goal], color="black", linewidth=1)
    axes.set_xticks(range(len(names)), [name.replace(" ", "\n", 1) for name in names], fontsize=8)
    axes.set_ylabel("speed, of the unshaped swarm's")
    axes.set_title("Mbit/s up/down, 40 ms round trips, 64x compression; lines: goals", fontsize=9)
    figure.legend(loc="outside lower center", ncols=len(columns), fontsize=8)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "iota"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--only", action="append", choices=[row.name for row in ROWS])
    parser.add_argument("--transport", action="append", choices=list(Ways), help="may be repeated")
    parser.add_argument("--congestion", default=CONGESTION, help="control of TCP's")
    parser.add_argument("--overlap", choices=["on", "off", "both"], default="both")
    parser.add_argument("--compute-s", type=float, default=0.675, help="of a microbatch, each stage")
    parser.add_argument("--sequences", type=int, default=32, help="in a microbatch: 16 KiB of a frame each")
    parser.add_argument("--microbatches", type=int, default=8, help="in a step")
    parser.add_argument("--credit", type=int, default=8, help="microbatches between forward and backward")
    parser.add_argument("--steps", type=int, default=7, help=f"of which {WARM_UP + LAST} are not counted")
    parser.add_argument("--dir", type=Path, default=Path("runs/bench-wan"), help="runs and logs")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("--picture", type=Path, help="draw the speeds; needs matplotlib")
    parser.add_argument("flags", nargs="*", help="after --: more flags for every miner")
    given = parser.parse_args()
    given.transport = given.transport or [Ways.STORE, Ways.DIRECT]
    if MISSING is not None:
        print(f"not run: an emulated internet {MISSING}")
        sys.exit(0 if given.smoke else 1)
    if given.smoke:
        given.only, given.overlap, given.transport = [ORION.name], "on", [Ways.DIRECT]
        given.compute_s, given.microbatches, given.steps = 0.3, 4, 4
    found = asyncio.run(run(given))
    print(report(found))
    if given.picture is not None:
        draw(found, given.picture)


if __name__ == "__main__":
    main()
