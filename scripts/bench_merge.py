"""How long a merge takes in a real swarm behind thin lines, and whether `bench_outer.py` computes the same.

The swarm is one stage of three miners, real processes on this machine. Each miner is a host of an emulated
internet (tests/support/emulated_internet.py) with one line for all its traffic; store, chain and orchestrator
are one host with a fast line. A merge lasts from the end of the epoch's last STEP at the last miner to the
start of the next epoch's first op at the first one, by the miners' receipts: so COMMIT, encoding, uploads,
the draw, merges, downloads, the new base on disk, and all that the orchestrator does in between, are in it.
Ops take a set time, so that each replica has a contribution, and the base that one of them stores is in the
store before the epoch ends. The first merge is left out: miners measure their lines before it.

The formula is `merge_seconds` of bench_outer.py with this swarm's parameters, parts, replicas, lines, block
time and draws of mergers, and with encode, merge and apply rates that are measured here. What reports, events
and COMMITs take is not in it: *messages* is the difference of a merge of the same swarm on lines that are no
limit. Lines are so thin that bytes are most of a merge, in both codecs.

    python scripts/bench_merge.py --json merge.json      # needs root and /dev/net/tun; a quarter of an hour
    python scripts/bench_merge.py --smoke                # does it run at all; a minute
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import shutil
import statistics
import sys
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from bench_outer import Links, Stage, measure, merge_seconds

from iota.objects import part_sizes
from iota.spec import OuterCodec
from iota.swarm.options import SwarmOptions
from iota.swarm.preparation import miner_names
from iota.swarm.programs import BLOCK_TIME_S
from iota.swarm.run_dir import write_json

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.support.emulated_internet import MISSING, PER_MBPS, EmulatedInternet, Host, Shape
from tests.support.internet.namespaces import enter
from tests.support.paced_engine import Pace
from tests.support.wan_swarms import WanSwarm

REPLICAS = 3
UP_DOWN = 1322 / 856
"""A line's download over its upload, as Orion's."""
DELAY_S = 0.005
"""On each line, in each direction."""
PACE = Pace(forward_s=0.0, loss_s=10.0, backward_s=0.0, step_s=0.0)
LONGEST_S = 1200.0


@dataclass(frozen=True)
class Row:
    """One swarm."""

    codec: OuterCodec
    hidden: int
    """Width of the model: sizes differ, so that bytes are most of the merge in each codec."""
    part_elements: int
    up_mbps: float
    steps: int
    epochs: int = 5


ROWS = (
    Row(OuterCodec.NONE, 128, 1 << 14, 2.0, steps=3),
    Row(OuterCodec.SPARSE, 256, 1 << 17, 6.0, steps=3),
)
SMOKE = Row(OuterCodec.SPARSE, 128, 1 << 16, 20.0, steps=1, epochs=3)


def options_of(row: Row, line: float) -> SwarmOptions:
    """A run of few and small steps; `line` is the slowest upload that deadlines allow for, bytes a second."""
    model = {
        "vocab_size": 257, "hidden_size": row.hidden, "layers": 4, "heads": 4, "kv_heads": 2,
        "ffn_size": 11 * row.hidden // 4,
    }  # fmt: skip
    values = {
        "outer": {"codec": row.codec, "part_elements": row.part_elements, "eta": 1.0, "momentum": 0.0},
        "audit": {"line": line},
        "model": model,
    }
    return SwarmOptions.of(
        stages=1, replicas=REPLICAS, epochs=row.epochs, steps_per_epoch=row.steps, microbatches=REPLICAS,
        boundary="identity", ratio=1, sequence_length=64, sequences=1, values=values,
    )  # fmt: skip


@dataclass(frozen=True)
class Merge:
    """One merge of a run, from the receipts on the miners' disks."""

    seconds: float
    share: float
    """Of the parts, what the busiest miner merged."""


def merges_of(run: Path, epochs: int, parts: int) -> list[Merge]:
    """The merges but the first and the last."""
    ended, began = dict.fromkeys(range(epochs), 0.0), dict.fromkeys(range(epochs), math.inf)
    merged: Counter[tuple[int, Path]] = Counter()
    for file in run.glob("nodes/*/receipts.jsonl"):
        for line in file.read_bytes().splitlines()[1:]:
            receipt = json.loads(line.partition(b" ")[2])
            epoch = receipt["epoch"]
            if receipt["kind"] == "step":
                ended[epoch] = max(ended[epoch], receipt["ended"])
            elif receipt["kind"] in ("forward", "loss"):
                began[epoch] = min(began[epoch], receipt["started"])
            elif receipt["kind"] == "merge":
                merged[epoch, file] += 1
    return [
        Merge(
            began[epoch + 1] - ended[epoch],
            max(count for (at, _), count in merged.items() if at == epoch) / parts,
        )
        for epoch in range(1, epochs - 1)
    ]


@dataclass(frozen=True)
class Measured:
    """A swarm's merges, and what the formula says of their parts."""

    parameters: int
    parts: int
    merges: list[Merge]
    formula: dict[str, float]
    """The mean over the merges."""

    @property
    def seconds(self) -> float:
        """Of a merge, the mean."""
        return statistics.fmean(merge.seconds for merge in self.merges)

    @property
    def formula_s(self) -> float:
        """What the formula says."""
        return sum(self.formula.values())


async def run_swarm(row: Row, shaped: bool, folder: Path, server: Host, hosts: dict[str, Host]) -> Measured:
    """Run a swarm, on the row's lines or on such as are no limit."""
    up, down = row.up_mbps * PER_MBPS, row.up_mbps * PER_MBPS * UP_DOWN
    for host in hosts.values():
        rates = (up, down) if shaped else (None, None)
        await host.shape(*(Shape(rate, delay_s=DELAY_S) for rate in rates))
    shutil.rmtree(folder, ignore_errors=True)
    swarm = WanSwarm(
        folder, options_of(row, up / 2), server, hosts, PACE,
        flags={name: ("--listen", f"{host.address}:0") for name, host in hosts.items()},
    )  # fmt: skip
    async with swarm:
        spec = swarm.spec
        sizes = part_sizes(spec, 0)
        await swarm.finished(LONGEST_S)
        taken = merges_of(swarm.run_dir.root, row.epochs, len(sizes))
    costs = await asyncio.to_thread(measure, row.codec, sum(sizes), row.part_elements)
    links = Links(up, down, orchestrator=math.inf, disk=math.inf, cores=1)
    if not shaped:
        links = replace(links, up=math.inf, down=math.inf)
    blocks_s, momentum = spec.audit.seal_blocks * BLOCK_TIME_S, bool(spec.outer.momentum)
    formulas = [
        merge_seconds(
            costs, Stage(sum(sizes), len(sizes), merge.share, 1, REPLICAS, blocks_s, momentum), links
        )
        for merge in taken
    ]
    parts = {name: statistics.fmean(each[name] for each in formulas) for name in formulas[0]}
    return Measured(sum(sizes), len(sizes), taken, parts)


async def run_row(row: Row, folder: Path, server: Host, hosts: dict[str, Host]) -> dict[str, Any]:
    """What was measured, and what the formula says."""
    free = await run_swarm(replace(row, steps=1), False, folder, server, hosts)
    found = await run_swarm(row, True, folder, server, hosts)
    messages_s = free.seconds - free.formula_s
    return {
        "row": asdict(row), **asdict(found), "free": asdict(free), "measured_s": found.seconds,
        "messages_s": messages_s, "formula_s": found.formula_s + messages_s,
    }  # fmt: skip


async def run(given: argparse.Namespace) -> list[dict[str, Any]]:
    """All rows, one after another."""
    found = []
    async with EmulatedInternet() as internet:
        server = await internet.host("server")
        enter(server.namespace)
        hosts = {name: await internet.host(name) for name in miner_names(REPLICAS)}
        rows = [row for row in ROWS if given.only in (None, row.codec)]
        for row in [SMOKE] if given.smoke else rows:
            found.append(await run_row(row, given.dir / row.codec, server, hosts))
            if given.json is not None:
                write_json(given.json, found)
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Markdown."""
    text = [
        "| codec | parameters, parts | up/down Mbit/s | merges, s | mean | formula | of these |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in found:
        codec, up = each["row"]["codec"], each["row"]["up_mbps"]
        told = each["formula"] | {"messages": each["messages_s"]}
        taken = ", ".join(f"{merge['seconds']:.1f}" for merge in each["merges"])
        text.append(
            f"| `{codec}` | {each['parameters']:,}, {each['parts']} | {up:g}/{up * UP_DOWN:.1f}"
            f" | {taken} | {each['measured_s']:.1f}"
            f" | {each['formula_s']:.1f} ({100 * (each['formula_s'] / each['measured_s'] - 1):+.0f} %)"
            f" | {', '.join(f'{name} {s:.1f}' for name, s in told.items())} |"
        )
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--only", choices=[row.codec.value for row in ROWS])
    parser.add_argument("--dir", type=Path, default=Path("runs/bench-merge"), help="runs and logs")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    given = parser.parse_args()
    if MISSING is not None:
        print(f"not run: an emulated internet {MISSING}")
        sys.exit(0 if given.smoke else 1)
    print(table(asyncio.run(run(given))))


if __name__ == "__main__":
    main()
