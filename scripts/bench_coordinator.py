"""What the coordinator costs by kind of entry, and how that grows with members, stages and microbatches.

It drives the coordinator alone, without network, journal or keys: a run of two epochs in which all members
do what they are asked to. The time of each entry is CPU time of `Coordinator.apply`, not that of making it.

How to read it: **a size** is STAGES x REPLICAS members. **exponents** are the slopes of a line through
log(cost) over log(size) where one of replicas, stages and microbatches grows and the others stay: 0 is a
cost that does not depend on it, 1 one that is linear. **bytes** are those of the events of one step as
JSON. **memory** is what stays of a settled op while its epoch goes on. **pauses** are those of the garbage
collector, with the settings of `iota-orchestrator`.

    python scripts/bench_coordinator.py                          # all sizes; minutes
    python scripts/bench_coordinator.py --baseline REVISION      # and the same with the code of a commit
    python scripts/bench_coordinator.py --picture costs.svg      # needs matplotlib
    python scripts/bench_coordinator.py --smoke                  # does it run at all; seconds
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import subprocess
import sys
import tarfile
import tempfile
import tracemalloc
from collections import defaultdict
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from statistics import mean, median
from typing import Any, Final

from coordinator_driver import Run

SIZES: Final = ((16, 3), (16, 30), (50, 40), (100, 100))
"""(stages, replicas of each) of the sizes that are reported whole."""
BASELINE_SIZES: Final = SIZES[:3]
"""Those that the code before can run in minutes."""
SERIES: Final = {
    "replicas": [(16, r, 128) for r in (8, 32, 128)],
    "stages": [(s, 8, 64) for s in (8, 32, 128)],
    "microbatches": [(16, 8, m) for m in (32, 128, 512)],
}
"""(stages, replicas, microbatches) of the fits: one of the three grows."""
REPEATS: Final = 3
"""Runs of each size of the fits: some entries come once in a run."""


def kept_per_op(stages: int, replicas: int, microbatches: int) -> float:
    """Bytes that stay of each settled op, while its epoch goes on."""
    run = Run(stages, replicas, microbatches, steps=16)
    run.join_all()

    def traced(steps: Iterable[int]) -> int:
        for step in steps:
            run.step(0, step)
            run.read_events()
        run.costs.seconds.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    before = traced(range(4))
    kept = traced(range(4, 14)) - before
    tracemalloc.stop()
    return kept / (10 * microbatches * (2 * stages - 1))


def measure(sizes: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """The report of whole runs, by size."""
    found: dict[str, Any] = {}
    for stages, replicas in sizes:
        costs = Run(stages, replicas, 4 * replicas).whole()
        found[f"{stages}x{replicas}"] = {
            "microbatches": 4 * replicas,
            "mean_us": {kind: 1e6 * mean(each) for kind, each in costs.seconds.items()},
            "max_us": {kind: 1e6 * max(each) for kind, each in costs.seconds.items()},
            "merge_s": costs.merge_s,
            "sent_bytes": dict(costs.sent),
            "longest_pause_ms": 1e3 * max(costs.pauses, default=0.0),
        }
        print(f"{stages}x{replicas}: merge {costs.merge_s:.2f} s", file=sys.stderr, flush=True)
    return found


def exponents() -> dict[str, dict[str, float]]:
    """dimension -> kind -> exponent of its median cost; and of the bytes of a step."""
    found: dict[str, dict[str, float]] = {}
    for dimension, sizes in SERIES.items():
        column = ("stages", "replicas", "microbatches").index(dimension)
        points: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for size in sizes:
            runs = [Run(*size, steps=5).whole() for _ in range(REPEATS)]
            for kind in runs[0].seconds:
                points[kind].append((size[column], median(s for run in runs for s in run.seconds[kind])))
            points["bytes"].append((size[column], sum(runs[0].sent.values())))
        found[dimension] = {kind: slope(each) for kind, each in points.items()}
        print(f"exponents in {dimension} done", file=sys.stderr, flush=True)
    return found


def slope(points: Iterable[tuple[float, float]]) -> float:
    """Slope of the least-squares line through (log x, log y)."""
    logs = [(math.log(x), math.log(y)) for x, y in points]
    middle_x, middle_y = mean(x for x, _ in logs), mean(y for _, y in logs)
    spread = sum((x - middle_x) ** 2 for x, _ in logs)
    return sum((x - middle_x) * (y - middle_y) for x, y in logs) / spread


def of_revision(revision: str) -> dict[str, Any]:
    """The same measurement with the code of another commit, by a process of its own."""
    packed = subprocess.run(["git", "archive", revision], stdout=subprocess.PIPE, check=True)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")
        command = [sys.executable, str(Path(__file__).resolve()), "--sizes-of-baseline"]
        environment = {**os.environ, "PYTHONPATH": folder}
        done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, cwd=folder, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def draw(report: dict[str, Any], path: Path) -> None:
    """A picture of the cost of each kind of entry over the number of members."""
    from matplotlib import colormaps, rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    kinds = [k for k in report["sizes"]["16x3"]["mean_us"] if k != "reveal"]
    for number, kind in enumerate(kinds):
        for name, style in (("sizes", "-o"), ("baseline", "--x")):
            by_size = report.get(name, {})
            points = [
                (math.prod(map(int, size.split("x"))), found["mean_us"][kind])
                for size, found in by_size.items()
                if kind in found["mean_us"]
            ]
            if not points:
                continue
            label = kind if name == "sizes" else None
            colour = colormaps["tab20"](number)
            axes.plot(*zip(*points, strict=True), style, color=colour, label=label, ms=4)
    axes.set(xscale="log", yscale="log", xlabel="members", ylabel="CPU of an entry (µs, mean)")
    axes.set_title("What an entry costs the coordinator (dashed: the baseline)")
    axes.grid(True, which="both", alpha=0.2)
    figure.legend(loc="outside right upper")
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "iota"}):
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main() -> None:
    """Measure, print JSON, and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="smallest size only")
    parser.add_argument("--baseline", metavar="REVISION", help="measure the code of this commit too")
    parser.add_argument("--picture", type=Path, help="write a picture (SVG, PNG) of the costs")
    parser.add_argument("--json", type=Path, help="write the report there too")
    parser.add_argument("--sizes-of-baseline", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.sizes_of_baseline:
        print(json.dumps(measure(BASELINE_SIZES)))
        return
    if arguments.smoke:
        print(json.dumps({"sizes": measure([(4, 2)]), "kept_bytes_per_op": kept_per_op(4, 2, 8)}))
        return
    report: dict[str, Any] = {"sizes": measure(SIZES)}
    if arguments.baseline:
        report["baseline"] = measured = of_revision(arguments.baseline)
        report["ratio_to_baseline"] = {
            size: {k: now["mean_us"][k] / v for k, v in measured[size]["mean_us"].items()}
            for size, now in report["sizes"].items()
            if size in measured
        }
    report["kept_bytes_per_op"] = kept_per_op(16, 3, 48)
    report["exponents"] = exponents()
    text = json.dumps(report, indent=1)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    if arguments.picture:
        draw(report, arguments.picture)


if __name__ == "__main__":
    main()
