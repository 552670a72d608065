"""How fast a whole swarm on one machine is against one plain process, and where its time goes.

Each configuration is a real `iota up --compare` in a process of its own: the swarm trains, and when it has
ended the same model, optimizer and batches run in one plain PyTorch process, alone and with all the
machine's cores (median of three). Nothing here is instrumented; the figures come from what a run leaves:
its summary, the nodes' own reports in `/v1/status`, CPU times of its processes, receipts and the journal.

How to read it:

- **efficiency**: tokens a second of the swarm over those of the plain process in the same run.
- **where a miner's time goes**: shares of the wall time from the first plan to the last merge. `compute`
  and `serialise` (frame and receipt to disk) are one thread's; `wait` is that thread without an op that
  could run; `other` is the rest of it (merges, snapshots, hand-overs). `transfer` is the sum of all
  transfers, which overlap each other and the compute. Compute includes being pushed off a core: with
  more busy processes than cores it grows and no op got slower.
- **the machine's CPU**: shares of cores x wall time of the training. A miner's `loop` is its main thread:
  HTTP, signatures, JSON; `device` is the rest of it. `others` is what ran on the machine beside the run:
  where it is not near zero the figures say little, and a warning is printed.
- **frames**: from the end of the op that makes a frame to the journaled notice (disk, PUT, exchange), and
  from there to the start of the op that it feeds (event, GET, checks) where the receiver had nothing else
  to do. tests/swarm/test_notice_latency.py holds the notice alone, on an idle machine.

    python scripts/bench_swarm.py                    # 3x1 and 3x2, with and without the validator
    python scripts/bench_swarm.py --only 3x1 -- --optimizer muon --epochs 5
    python scripts/bench_swarm.py --smoke            # does it run at all: tiny, under 90 s
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from swarm_traces import Watch, frame_latencies, op_seconds

from iota.swarm.run_dir import write_json

POLL_S = 0.5
GRACE_S = 30.0
LONGEST_S = 3600.0
PER_ROUTE = 8
"""Microbatches in a step for each replica, so that the pipeline can be full."""
MINIMUM = 0.75
MAX_OTHERS = 0.05
"""Share of the machine that others may take before the figures are worth nothing."""


@dataclass(frozen=True)
class Config:
    name: str
    stages: int
    replicas: int
    validator: bool

    def flags(self) -> list[str]:
        found = ["--stages", self.stages, "--replicas", self.replicas]
        found += ["--microbatches", PER_ROUTE * self.replicas]
        return [*map(str, found), "--validator" if self.validator else "--no-validator"]


CONFIGS = (
    Config("3x1", 3, 1, validator=True),
    Config("3x1-no-validator", 3, 1, validator=False),
    Config("3x2", 3, 2, validator=True),
    Config("3x2-no-validator", 3, 2, validator=False),
)
SMOKE = Config("smoke", 2, 1, validator=False)
SMOKE_FLAGS = ("--model", "tiny", "--epochs", "1", "--steps-per-epoch", "6", "--sequence-length", "64")


class BenchFailed(Exception):
    """A swarm did not reach its end."""


def run(config: Config, extra: list[str], folder: Path) -> dict[str, Any]:
    """One swarm to its end, and everything that is known of it then. Raises BenchFailed."""
    run_dir, summary = folder / config.name, folder / f"{config.name}.summary.json"
    shutil.rmtree(run_dir, ignore_errors=True)
    command = [sys.executable, "-m", "iota.cli.main", "up", *config.flags(), *extra]
    command += ["--run-dir", str(run_dir), "--summary", str(summary), "--compare", "--no-dashboard"]
    log = folder / f"{config.name}.log"
    folder.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        watch = Watch(run_dir, process.pid)
        try:
            _wait(process, watch)
        finally:
            _stop(process)
    if process.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise BenchFailed(f"iota up ended with code {process.returncode}; {log} ends with:\n{tail}")
    found: dict[str, Any] = json.loads(summary.read_bytes())
    wall_s = found["tokens"] / found["tokens_per_second"]
    return {
        "config": asdict(config),
        "flags": [*config.flags(), *extra],
        "summary": found,
        "training_s": wall_s,
        "miners": watch.activities(wall_s),
        "cpu": watch.cpu_shares(),
        "ops": op_seconds(run_dir),
        "frames": frame_latencies(run_dir),
    }


def _wait(process: subprocess.Popen[bytes], watch: Watch) -> None:
    deadline = time.monotonic() + LONGEST_S
    while process.poll() is None:
        if time.monotonic() > deadline:
            raise BenchFailed(f"iota up did not end within {LONGEST_S:.0f} s")
        watch.look()
        time.sleep(POLL_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def report(results: list[dict[str, Any]]) -> str:
    """The tables, in markdown."""
    parts = [_speeds(results)]
    for result in results:
        parts.append(f"### {result['config']['name']}")
        parts += [_miners(result), _cpu(result), _frames(result)]
        if result["cpu"]["others"]["share"] > MAX_OTHERS:
            parts.append("**Other processes were at work on this machine: measure again when it is idle.**")
    return "\n\n".join(parts)


def _speeds(results: list[dict[str, Any]]) -> str:
    text = [
        "| swarm | M | tokens/s | one process | efficiency | utilization | first loss | validator's CPU |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        summary, config = result["summary"], result["config"]
        share = summary["validator_compute_share"]
        text.append(
            f"| {config['name']} | {PER_ROUTE * config['replicas']} | {summary['tokens_per_second']:,.0f}"
            f" | {summary['single_process_tokens_per_second']:,.0f} | **{summary['efficiency']:.2f}**"
            f" | {summary['utilization']:.1%} | {summary['time_to_first_loss_s']:.1f} s"
            f" | {'none' if share is None else f'{share:.1%}'} |"
        )
    return "\n".join(text)


def _miners(result: dict[str, Any]) -> str:
    kinds = ("compute", "serialise", "wait", "other", "transfer")
    text = ["| miner | stage | " + " | ".join(kinds) + " | op, mean ms |", "|---" * 8 + "|"]
    for name, miner in sorted(result["miners"].items(), key=lambda item: (item[1]["stage"], item[0])):
        ops = ", ".join(f"{k} {1000 * s:.0f}" for k, s in result["ops"].get(name, {}).items())
        shares = " | ".join(f"{miner['shares'][kind]:.0%}" for kind in kinds)
        text.append(f"| {name} | {miner['stage']} | {shares} | {ops} |")
    return "\n".join(text)


def _cpu(result: dict[str, Any]) -> str:
    text = ["| process | CPU s | of the machine |", "|---|---|---|"]
    for name, row in result["cpu"].items():
        text.append(f"| {name} | {row['seconds']:.1f} | {row['share']:.1%} |")
    return "\n".join(text)


def _frames(result: dict[str, Any]) -> str:
    text = ["| frames | count | median ms | 99 % ms |", "|---|---|---|---|"]
    for name, row in result["frames"].items():
        text.append(f"| {name} | {row['count']} | {row['p50_ms']:.1f} | {row['p99_ms']:.1f} |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--only", action="append", choices=[config.name for config in CONFIGS])
    parser.add_argument("--dir", type=Path, default=Path("runs/bench-swarm"), help="runs and logs")
    parser.add_argument("--json", type=Path, help="write everything to this file")
    parser.add_argument("flags", nargs="*", help="after --: more flags for iota up")
    given = parser.parse_args()
    configs = [c for c in CONFIGS if given.only is None or c.name in given.only]
    extra = list(given.flags)
    if given.smoke:
        configs, extra = [SMOKE], [*SMOKE_FLAGS, *extra]
    results = []
    for config in configs:
        print(f"iota up {' '.join([*config.flags(), *extra])}", file=sys.stderr, flush=True)
        results.append(run(config, extra, given.dir))
    print(f"{os.cpu_count()} cores\n\n{report(results)}")
    first = results[0]["summary"]["efficiency"]
    if not given.smoke and results[0]["config"]["name"] == "3x1":
        print(f"\n3x1 is to reach {MINIMUM}: it {'does' if first >= MINIMUM else 'does NOT'}")
    if given.json is not None:
        write_json(given.json, results)


if __name__ == "__main__":
    main()
