"""What a commitment to a stage's state costs a miner: bytes and seconds a parameter, and at full size.

A state of `--parameters` in matrices of 4096 x 4096, with AdamW's two moments and, as in `delayed`, the
weights of the version before, goes through what the miner does at a committed version:

    wait    for the copy's start, in the device thread: what training waits for
    copy    until the copy in host memory is complete; from CUDA that is later, on the CPU it is the same
    hash    the Merkle roots, in the committer's thread
    write   the snapshot to the disk, synced, in the committer's thread

The CPU's time is that of the calling thread: with `--threads` above 1 the hashing has others. Each figure is
the least of `--repeats`. What it makes at 6.5 billion parameters is computed from them: the bytes are exact,
the seconds are those of this machine. A `--folder` in memory leaves the disk out.

    python scripts/bench_commit.py                  # JSON
    python scripts/bench_commit.py --device cuda --parameters 1e9
    python scripts/bench_commit.py --smoke          # does it run at all; a second
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from iota.compute.commitment import commitment
from iota.compute.host_copy import start_copy
from iota.compute.state import save_state
from iota.spec.parts import OuterSpec

FULL = 6.5e9
"""Parameters of the largest stage that the design counts with."""
SIDE = 4096

T = TypeVar("T")


def make_state(parameters: int, side: int, device: str) -> tuple[dict[str, Tensor], ...]:
    """Weights, AdamW's moments and the weights before, on `device`; values do not matter."""
    names = [f"layers.{n}.weight" for n in range(max(1, parameters // side**2))]

    def group(*kinds: str) -> dict[str, Tensor]:
        return {f"{kind}{name}": torch.randn(side, side, device=device) for kind in kinds for name in names}

    return group(""), group("exp_avg.", "exp_avg_sq."), group("")


def timed(call: Callable[[], T]) -> tuple[float, float, T]:
    """Seconds of a call by the clock, those of this thread's CPU, and its result."""
    begun, cpu = time.perf_counter(), time.thread_time()
    result = call()
    return time.perf_counter() - begun, time.thread_time() - cpu, result


def once(groups: tuple[dict[str, Tensor], ...], part: int, folder: Path) -> dict[str, float]:
    """Seconds of each phase, once."""
    wait_s, wait_cpu_s, copy = timed(lambda: start_copy(*groups))
    rest_s, rest_cpu_s, state = timed(copy.result)
    hash_s, hash_cpu_s, roots = timed(lambda: commitment(state, part))
    write_s, write_cpu_s, _ = timed(lambda: save_state(state, folder / "state", roots))
    return {
        "wait": wait_s,
        "copy": wait_s + rest_s,
        "hash": hash_s,
        "write": write_s,
        "copy (CPU)": wait_cpu_s + rest_cpu_s,
        "hash (CPU)": hash_cpu_s,
        "write (CPU)": write_cpu_s,
    }


def report(seconds: dict[str, float], parameters: int, size: int) -> dict[str, object]:
    """Bytes and seconds a parameter, and what they make at full size."""
    a_parameter = {name: s / parameters for name, s in seconds.items()}
    return {
        "parameters": parameters,
        "bytes_a_parameter": round(size / parameters, 2),
        "ns_a_parameter": {name: round(1e9 * s, 3) for name, s in a_parameter.items()},
        "at_6.5e9": {
            "gb": round(size / parameters * FULL / 1e9, 1),
            "seconds": {name: round(s * FULL, 1) for name, s in a_parameter.items()},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a tiny state, once")
    parser.add_argument("--parameters", type=float, default=2e8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads of the hashing")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the snapshot is written; a temporary folder")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    side, repeats = (64, 1) if given.smoke else (SIDE, given.repeats)
    groups = make_state(10**5 if given.smoke else int(given.parameters), side, given.device)
    part = OuterSpec().part_elements
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        runs = [once(groups, part, Path(folder)) for _ in range(repeats)]
        size = (Path(folder) / "state").stat().st_size
    parameters = sum(weight.numel() for weight in groups[0].values())
    best = {name: min(run[name] for run in runs) for name in runs[0]}
    made = report(best, parameters, size)
    print(json.dumps({"device": given.device, "threads": given.threads, **made}, indent=2))


if __name__ == "__main__":
    main()
