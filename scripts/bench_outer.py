"""What codecs of pseudo-gradients cost: bytes, seconds, memory, and how much of an epoch a merge takes.

Measured of vectors of `--elements`, one partition of `--part` elements after another, on one thread:

    encode   beta x feedback + change, the codec, and the feedback that is left, as bf16
    start    decode the own contribution, and the outer step with it: the own start of a run with overlap
    merge    decode three contributions, their weighted mean, and the bytes of the merged part
    apply    read the merged part, and the outer step with momentum
    memory   the most that an encoded partition needs at once beside the vector and the feedback on disk

Computed: the utilization of a stage of `--parameters` and 3 replicas on links of `--up` and `--down` Mbit/s,
in a run of 16 stages, H·T / (H·T + C). A merge is the sum of: encoding; the upload (or the two blocks of 12 s
that the draw of mergers waits for, if encoding and upload take less); the merges of the busiest miner (two
miners, drawn by chance, merge each part, so that one fetches the contributions of 2/3 of a stage and a little
more, merges these, and stores what comes out); the orchestrator's read of what was merged, of all stages over
a line of `--orchestrator` Mbit/s; the download of the stage's merge; its application; and the new base and
its start state on a disk of `--disk` GB/s, as are the encoded pseudo-gradient and the feedback, read and
written. Encoding, own starts and merging take `--cores` cores, application one.

Without overlap all of it is C: nothing else goes on. With overlap (`outer.overlap` one_epoch) C is encoding
and the own start, whose base is read from disk, and what the rest of a merge takes longer than the H steps
that it goes on behind; a plain mean, whose base has no momentum, is reckoned with. T, the
seconds of a step, follows from what the Orion-100B run reports for a merge in fp32 over the same links, whose
upload and download are 2.24 of its steps (81.8 % at H = 10, 97.8 % at H = 100). `scripts/bench_merge.py`
holds the formula against real swarms.

    python scripts/bench_outer.py                       # 10 M and 100 M elements
    python scripts/bench_outer.py --elements 1e9        # a billion; ten minutes
    python scripts/bench_outer.py --smoke               # does it run at all; a second
    python scripts/bench_outer.py --json out.json
"""

from __future__ import annotations

import argparse
import math
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

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
MERGERS = 2
"""Of each part."""
GOODPUT = 1448 / 1500
"""Of a packet, what is no header of TCP's or IP's."""
REQUEST_BYTES = 2000
"""Of an object beside its own bytes: URLs, headers, and the request for a URL."""
DRAWS = 50
"""Of which the busiest miner's share is the mean."""
MERGE_STEPS = 2.24
"""Steps that a merge of Orion-100B takes: 10·(1/0.818 - 1), and 100·(1/0.978 - 1)."""
RUN_PART = 1 << 26
"""Elements of a partition of that stage, as `iota spec` proposes: each is merged whole."""
STATE_BYTES = 12
"""An element of a start state on disk: a weight and two moments, fp32."""
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
    start_s: float
    merge_s: float
    apply_s: float
    memory_parts: float
    """Peak of encoding, in fp32 partitions."""


@dataclass(frozen=True)
class Stage:
    """One of a run's stages, and what else decides how long its merge takes."""

    parameters: int
    parts: int
    share: float
    """Of a stage, what the busiest miner merges."""
    stages: int = STAGES
    replicas: int = REPLICAS
    blocks_s: float = BLOCKS_S
    momentum: bool = False
    """Whether its base has one."""

    @property
    def base(self) -> int:
        """Bytes of its base."""
        return (8 if self.momentum else 4) * self.parameters


def drawn_share(parts: int, miners: int, stages: int) -> float:
    """Of a stage, what the busiest of all miners merges: the mean over draws by chance."""
    drawn, most = np.random.default_rng(0), []
    for _ in range(DRAWS):
        pairs = drawn.random((stages * parts, miners)).argpartition(MERGERS, 1)[:, :MERGERS]
        most.append(np.bincount(pairs.reshape(-1), minlength=miners).max())
    return float(np.mean(most)) / parts


@dataclass(frozen=True)
class Links:
    """Bytes a second, and cores of a miner."""

    up: float
    down: float
    orchestrator: float
    disk: float
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


@dataclass(frozen=True)
class Given:
    """What a partition's costs are measured with; made once for partitions of one size."""

    change: Vector
    feedback: bytes
    """As it lies on disk; empty for none."""
    contributions: dict[str, bytes]
    base: OuterState

    @classmethod
    def of(cls, codec: OuterCodec, size: int) -> Given:
        """For partitions of `size` elements."""
        outer, code = OuterSpec(codec=codec), open_delta_codec(codec)
        changes = [change_of(size, seed) for seed in range(REPLICAS)]
        _, left = encode_part(outer, changes[0], None)
        feedback = b"" if left is None else write_feedback(left)
        sent = {str(n): code.encode(each) for n, each in enumerate(changes)}
        return cls(changes[0], feedback, sent, OuterState(changes[1], changes[2]))


def measure(codec: OuterCodec, elements: int, part: int) -> Costs:
    """The costs of a vector of so many elements, partition by partition."""
    sizes = [part] * (elements // part) + [elements % part] * bool(elements % part)
    seconds: Counter[str] = Counter()
    sent = merged = 0
    for size in dict.fromkeys(sizes):
        given = Given.of(codec, size)
        for _ in range(sizes.count(size)):
            took, data, stored = measure_part(codec, size, given)
            seconds.update(took)
            sent, merged = sent + len(data), merged + len(stored)
    a_billion = {f"{name}_s": 1e9 * s / elements for name, s in seconds.items()}
    memory = memory_of(OuterSpec(codec=codec), min(part, elements))
    return Costs(codec.value, elements, sent / elements, merged / elements, memory_parts=memory, **a_billion)


def measure_part(codec: OuterCodec, size: int, given: Given) -> tuple[dict[str, float], bytes, bytes]:
    """Seconds of each piece of work, and the bytes of a contribution and of the merged part."""
    outer, code = OuterSpec(codec=codec), open_delta_codec(codec)

    def encode() -> bytes:
        feedback = read_feedback(given.feedback, size) if given.feedback else None
        data, rest = encode_part(outer, given.change, feedback)
        if rest is not None:
            write_feedback(rest)
        return data

    def merge() -> bytes:
        shares = dict.fromkeys(given.contributions, 1)
        mean = weighted_mean(shares, lambda name: code.decode(given.contributions[name], size))
        return write_merged(codec, mean)

    encode_s, data = timed(encode)
    start_s, _ = timed(lambda: outer_step(given.base, code.decode(data, size), 0.7, 0.9))
    merge_s, merged = timed(merge)
    apply_s, _ = timed(lambda: outer_step(given.base, read_merged(codec, merged, size), 0.7, 0.9))
    return {"encode": encode_s, "start": start_s, "merge": merge_s, "apply": apply_s}, data, merged


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


def merge_seconds(costs: Costs, stage: Stage, links: Links) -> dict[str, float]:
    """Seconds of each part of a merge, one after another."""
    codec, size = OuterCodec(costs.codec), stage.parameters
    requests = stage.parts * REQUEST_BYTES
    sent = delta_bytes(codec, size)
    to_store, to_fetch = sent + requests, merged_bytes(codec, size, stage.replicas) + requests
    up, down = links.up * GOODPUT, links.down * GOODPUT
    billions, feedback = size / 1e9, 2 * size if codec.has_feedback else 0
    encode_s = billions / links.cores * costs.encode_s + (2 * feedback + sent) / links.disk
    fetch_s, merge_s = stage.replicas * to_store / down, billions / links.cores * costs.merge_s
    return {
        "encode": encode_s,
        "upload": max(stage.blocks_s - encode_s, to_store / up),
        "merge": stage.share * (fetch_s + merge_s + to_fetch / up),
        "orchestrator": stage.stages * to_fetch / (links.orchestrator * GOODPUT),
        "download": to_fetch / down,
        "apply": billions * costs.apply_s,
        "disk": (stage.base + STATE_BYTES * size) / links.disk,
    }


def idle_seconds(costs: Costs, stage: Stage, links: Links, training_s: float, overlap: bool) -> float:
    """Seconds between an epoch's last step and the next one's first, for epochs of `training_s`."""
    parts = merge_seconds(costs, stage, links)
    if not overlap:
        return sum(parts.values())
    start_s = stage.parameters / 1e9 / links.cores * costs.start_s + stage.base / links.disk
    return parts.pop("encode") + start_s + max(0.0, sum(parts.values()) - training_s)


def utilization(costs: Costs, stage: Stage, links: Links, steps: int, step_s: float, overlap: bool) -> float:
    """Share of an epoch in which a replica trains."""
    training_s = steps * step_s
    return training_s / (training_s + idle_seconds(costs, stage, links, training_s, overlap))


def orion_step_s(parameters: float, links: Links) -> float:
    """Seconds of a step by which a merge in fp32 takes as much of an epoch as Orion-100B reports."""
    return (4 * parameters / links.up + 4 * parameters / links.down) / MERGE_STEPS


def costs_table(found: list[Costs]) -> str:
    """Markdown."""
    text = [
        "| codec | elements | bytes | merged bytes | encode s | start s | merge s | apply s | memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for each in found:
        text.append(
            f"| `{each.codec}` | {each.elements:,} | {each.bytes_an_element:.4f} |"
            f" {each.merged_bytes_an_element:.3f} | {each.encode_s:.1f} | {each.start_s:.1f} |"
            f" {each.merge_s:.1f} | {each.apply_s:.1f} | {each.memory_parts:.1f} |"
        )
    return "\n".join(text)


def utilizations(found: Iterable[Costs], parameters: int, links: Links) -> list[dict[str, Any]]:
    """Of each codec: the seconds of its merge, and utilization at H = 10 and 100 without and with overlap."""
    step_s, rows, parts = orion_step_s(parameters, links), [], -(-parameters // RUN_PART)
    share = drawn_share(parts, STAGES * REPLICAS, STAGES)
    for each in found:
        stage = Stage(parameters, parts, share)
        shares = {
            f"{'overlap, ' if overlap else ''}H = {steps}": utilization(
                each, stage, links, steps, step_s, overlap
            )
            for overlap in (False, True)
            for steps in (10, 100)
        }
        took = merge_seconds(each, stage, links)
        start_s = idle_seconds(each, stage, links, math.inf, True) - took["encode"]
        rows.append({"codec": each.codec, "merge_s": took, "start_s": start_s, "utilization": shares})
    return rows


def utilization_table(rows: list[dict[str, Any]], step_s: float) -> str:
    """Markdown."""
    shares = list(rows[0]["utilization"])
    text = [f"A step of {step_s:.0f} s:", "", f"| codec | merge, s | own start, s | {' | '.join(shares)} |"]
    text.append("|---|---|---" + "|---" * len(shares) + "|")
    for row in rows:
        parts = ", ".join(f"{name} {s:.0f}" for name, s in row["merge_s"].items())
        told = " | ".join(f"{100 * share:.2f} %" for share in row["utilization"].values())
        whole = sum(row["merge_s"].values())
        text.append(f"| `{row['codec']}` | {whole:.0f} ({parts}) | {row['start_s']:.0f} | {told} |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a small vector")
    parser.add_argument("--elements", type=float, nargs="+", default=[1e7, 1e8])
    parser.add_argument(
        "--part", type=int, default=1 << 24, help="elements of a partition (a run has at most 128)"
    )
    parser.add_argument("--parameters", type=float, default=6.5e9, help="of the stage")
    parser.add_argument("--disk", type=float, default=5.0, help="GB/s of a miner's disk")
    parser.add_argument("--up", type=float, default=856.0, help="Mbit/s of a miner")
    parser.add_argument("--down", type=float, default=1322.0)
    parser.add_argument("--orchestrator", type=float, default=10_000.0, help="Mbit/s of its line")
    parser.add_argument("--cores", type=int, default=8, help="of a miner, each with a partition of its own")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    given = parser.parse_args()
    elements = [100_000] if given.smoke else [int(n) for n in given.elements]
    up, down, orchestrator = (mbps * 125e3 for mbps in (given.up, given.down, given.orchestrator))
    links = Links(up, down, orchestrator, given.disk * 1e9, given.cores)
    found = [measure(codec, n, given.part) for n in elements for codec in OuterCodec]
    print(costs_table(found) + "\n")
    step_s, newest = orion_step_s(given.parameters, links), {each.codec: each for each in found}
    rows = utilizations(newest.values(), int(given.parameters), links)
    print(utilization_table(rows, step_s))
    if given.json is not None:
        told = {"numpy": np.__version__, "links": asdict(links), "parameters": given.parameters}
        told |= {"step_s": step_s, "costs": [asdict(each) for each in found], "merges": rows}
        write_json(given.json, told)


if __name__ == "__main__":
    main()
