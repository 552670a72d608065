"""What codecs of pseudo-gradients cost: bytes, seconds and memory, and how much of an epoch a merge takes.

Measured, by partitions of `--part` elements on one thread, of vectors of `--elements`:

    encode   beta x feedback + change, the codec, and the feedback that is left, as bf16
    merge    decode three contributions, their weighted mean, and the bytes of the merged part
    apply    read the merged part, and the outer step with momentum
    memory   the most that an encoded partition needs at once beside the vector and the feedback on disk

Computed: the utilization H·T / (H·T + M) of a stage of `--parameters` and 3 replicas on links of `--up` and
`--down` Mbit/s, in a run of 16 stages. M is the sum of: encode and upload (or the two blocks of 12 s that the
draw of mergers waits for, if these take longer); the merges of one miner (two miners merge each part, so that
one fetches the contributions of 2/3 of a stage, merges these, and stores what comes out); the orchestrator's
read of what was merged, of all stages over a line of `--orchestrator` Mbit/s; the download of the stage's
merge; its application. Nothing overlaps, and compute takes `--cores` cores. T, the seconds of a
step, follows from what the Orion-100B run reports for a merge in fp32 over the same links, whose upload and
download are 2.24 of its steps (81.8 % at H = 10, 97.8 % at H = 100).

    python scripts/bench_outer.py                       # 10 M and 100 M elements
    python scripts/bench_outer.py --elements 1e9        # a billion
    python scripts/bench_outer.py --smoke               # does it run at all; a second
    python scripts/bench_outer.py --json out.json
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from iota.objects.delta_sizes import delta_bytes, merged_bytes
from iota.outer import OuterState, open_delta_codec, outer_step
from iota.outer.error_feedback import encode_part, read_feedback, write_feedback
from iota.outer.merged_part import read_merged, write_merged
from iota.outer.partition import Vector
from iota.outer.weighted_mean import weighted_mean
from iota.spec import OuterCodec, OuterSpec
from iota.swarm.run_dir import write_json

REPLICAS = 3
STAGES = 16
BLOCKS_S = 24.0
"""Two blocks of Bittensor, for the draw of mergers."""
MERGE_STEPS = 2.24
"""Steps that a merge of Orion-100B takes: 10·(1/0.818 - 1), and 100·(1/0.978 - 1)."""
_T = TypeVar("_T")


@dataclass(frozen=True)
class Costs:
    """Of one codec and vector; times are of one thread."""

    codec: str
    elements: int
    bytes_an_element: float
    merged_bytes_an_element: float
    encode_s: float
    """Seconds a billion elements; likewise below."""
    merge_s: float
    apply_s: float
    memory_parts: float
    """Peak of encoding, in fp32 partitions."""


@dataclass(frozen=True)
class Links:
    """Bytes a second, and cores of a miner."""

    up: float
    down: float
    orchestrator: float
    cores: int


def timed(call: Callable[[], _T]) -> tuple[float, _T]:
    """Seconds of this thread's CPU in a call, and its result: nothing here has another thread."""
    began = time.thread_time()
    result = call()
    return time.thread_time() - began, result


def change_of(elements: int, seed: int) -> Vector:
    """A pseudo-gradient with heavier tails than a normal distribution's."""
    drawn = np.random.default_rng(seed)
    found: Vector = drawn.standard_normal(elements, np.float32)
    found *= np.float32(1e-4) * (1 + np.abs(drawn.standard_normal(elements, np.float32)))
    return found


def measure(codec: OuterCodec, elements: int, part: int) -> Costs:
    """The costs of a vector of so many elements, partition by partition."""
    outer, code = OuterSpec(codec=codec), open_delta_codec(codec)
    seconds = dict.fromkeys(("encode", "merge", "apply"), 0.0)
    sent = merged_size = 0
    for first in range(0, elements, part):
        size = min(part, elements - first)
        changes = [change_of(size, first + replica) for replica in range(REPLICAS)]
        _, left = encode_part(outer, changes[0], None)
        kept = b"" if left is None else write_feedback(left)

        def encode(change: Vector = changes[0], kept: bytes = kept, size: int = size) -> bytes:
            data, rest = encode_part(outer, change, read_feedback(kept, size) if kept else None)
            if rest is not None:
                write_feedback(rest)
            return data

        took, data = timed(encode)
        seconds["encode"] += took
        given = {str(n): code.encode(each) for n, each in enumerate(changes)}

        def merge(given: dict[str, bytes] = given, size: int = size) -> bytes:
            mean = weighted_mean(dict.fromkeys(given, 1), lambda name: code.decode(given[name], size))
            return write_merged(codec, mean)

        took, merged = timed(merge)
        seconds["merge"] += took
        base = OuterState(changes[1], changes[2])

        def apply(merged: bytes = merged, base: OuterState = base, size: int = size) -> OuterState:
            return outer_step(base, read_merged(codec, merged, size), 0.7, 0.9)

        took, _ = timed(apply)
        seconds["apply"] += took
        sent, merged_size = sent + len(data), merged_size + len(merged)
    a_billion = {name: 1e9 * s / elements for name, s in seconds.items()}
    return Costs(
        codec.value,
        elements,
        sent / elements,
        merged_size / elements,
        a_billion["encode"],
        a_billion["merge"],
        a_billion["apply"],
        memory_of(outer, min(part, elements)),
    )


def memory_of(outer: OuterSpec, part: int) -> float:
    """Peak memory of encoding one partition, in fp32 partitions."""
    change = change_of(part, 0)
    _, left = encode_part(outer, change, None)
    kept = b"" if left is None else write_feedback(left)
    del left
    tracemalloc.start()
    data, rest = encode_part(outer, change, read_feedback(kept, part) if kept else None)
    if rest is not None:
        write_feedback(rest)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data
    return peak / (4 * part)


def merge_seconds(costs: Costs, parameters: float, links: Links) -> dict[str, float]:
    """Seconds of each part of a merge, one after another."""
    codec, size, share = OuterCodec(costs.codec), int(parameters), 2 / REPLICAS
    sent, merged = delta_bytes(codec, size), merged_bytes(codec, size, REPLICAS)
    billions = parameters / 1e9 / links.cores
    return {
        "encode, upload": max(BLOCKS_S, billions * costs.encode_s + sent / links.up),
        "merge": share * (REPLICAS * sent / links.down + billions * costs.merge_s + merged / links.up),
        "orchestrator": STAGES * merged / links.orchestrator,
        "download": merged / links.down,
        "apply": billions * costs.apply_s,
    }


def utilization(merge_s: float, steps: int, step_s: float) -> float:
    """Share of an epoch in which a replica trains."""
    return steps * step_s / (steps * step_s + merge_s)


def orion_step_s(parameters: float, links: Links) -> float:
    """Seconds of a step by which a merge in fp32 takes as much of an epoch as Orion-100B reports."""
    return (4 * parameters / links.up + 4 * parameters / links.down) / MERGE_STEPS


def tables(found: list[Costs], parameters: float, links: Links) -> str:
    """Markdown."""
    text = [
        "| codec | elements | bytes | merged bytes | encode s | merge s | apply s | memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in found:
        text.append(
            f"| `{each.codec}` | {each.elements:,} | {each.bytes_an_element:.4f} |"
            f" {each.merged_bytes_an_element:.3f} | {each.encode_s:.1f} | {each.merge_s:.1f} |"
            f" {each.apply_s:.1f} | {each.memory_parts:.1f} |"
        )
    step_s = orion_step_s(parameters, links)
    text += ["", f"A step of {step_s:.0f} s:", ""]
    text += ["| codec | merge, s | H = 10 | H = 100 |", "|---|---|---|---|"]
    for each in {each.codec: each for each in found}.values():
        parts = merge_seconds(each, parameters, links)
        whole = sum(parts.values())
        told = ", ".join(f"{name} {s:.0f}" for name, s in parts.items())
        shares = [f"{100 * utilization(whole, steps, step_s):.1f} %" for steps in (10, 100)]
        text.append(f"| `{each.codec}` | {whole:.0f} ({told}) | {' | '.join(shares)} |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a small vector")
    parser.add_argument("--elements", type=float, nargs="+", default=[1e7, 1e8])
    parser.add_argument("--part", type=int, default=1 << 24, help="elements of a partition")
    parser.add_argument("--parameters", type=float, default=6.5e9, help="of the stage")
    parser.add_argument("--up", type=float, default=856.0, help="Mbit/s of a miner")
    parser.add_argument("--down", type=float, default=1322.0)
    parser.add_argument("--orchestrator", type=float, default=10_000.0, help="Mbit/s of its line")
    parser.add_argument("--cores", type=int, default=8, help="of a miner, each with a partition of its own")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    given = parser.parse_args()
    elements = [100_000] if given.smoke else [int(n) for n in given.elements]
    links = Links(given.up * 125e3, given.down * 125e3, given.orchestrator * 125e3, given.cores)
    found = [measure(codec, n, given.part) for n in elements for codec in OuterCodec]
    print(tables(found, given.parameters, links))
    if given.json is not None:
        step_s = orion_step_s(given.parameters, links)
        merges = {each.codec: merge_seconds(each, given.parameters, links) for each in found}
        write_json(
            given.json,
            {
                "numpy": np.__version__,
                "links": asdict(links),
                "parameters": given.parameters,
                "step_s": step_s,
                "costs": [asdict(each) for each in found],
                "merge_s": merges,
                "utilization": {
                    codec: {steps: utilization(sum(parts.values()), steps, step_s) for steps in (10, 100)}
                    for codec, parts in merges.items()
                },
            },
        )


if __name__ == "__main__":
    main()
