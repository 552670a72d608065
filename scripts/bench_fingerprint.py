"""What a fingerprint costs: seconds by model, optimizer and stage, against a microbatch of the same stage.

Each row is the fastest of several fingerprints of three-stage runs with the schedule that `iota up` proposes,
in wall time and in CPU time of the process: what the machine does besides adds to the first alone.
`microbatch_s` is the CPU time of a microbatch of that stage, forward and backward; it is left out where the
stage does not fit in a test machine. `narrowed` says the widths of the layer that was computed.

    python scripts/bench_fingerprint.py                # JSON
    python scripts/bench_fingerprint.py --smoke        # the smallest model, once
    python scripts/bench_fingerprint.py --device cuda
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import encode_wire
from iota.compute import Microbatch
from iota.compute.determinism import device_class
from iota.compute.engine import Engine
from iota.compute.fingerprint import fingerprint
from iota.compute.state import StageState
from iota.model.layout import count, run_shapes
from iota.model.narrowed import narrowed
from iota.spec import OptimizerKind, Precision, RunSpec
from iota.swarm.options import SwarmOptions

STAGES = 3
NONCE = "5e" * 32
VOCABULARY = {"tiny": 257, "small": 257}
"""Others have that of Llama."""
MAX_MEASURED = 10**8
"""Parameters of a stage whose microbatch is measured too."""


def spec_of(model: str, optimizer: OptimizerKind, precision: Precision) -> RunSpec:
    """The run that `iota up` proposes."""
    options = SwarmOptions.of(stages=STAGES, model=model, optimizer=optimizer)
    spec = options.spec("0" * 64, VOCABULARY.get(model, 128_256))
    return RunSpec.model_validate({**spec.model_dump(), "precision": precision})


def best(work: Callable[[], Any], times: int) -> tuple[float, float]:
    """Wall and CPU seconds of the fastest of so many calls, each by itself."""
    walls, cpus = [], []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return min(walls), min(cpus)


def microbatch(spec: RunSpec, stage: int, device: str) -> Callable[[], None]:
    """Computes one microbatch of `stage`, with noise for what it receives."""
    engine, drawn = Engine(spec, stage, device=device), np.random.default_rng(0)
    engine.load(StageState.initial(spec, stage), version=0)
    tokens = drawn.integers(0, spec.model.vocab_size, (spec.data.sequences, spec.data.sequence_length + 1))
    noise = torch.from_numpy(drawn.standard_normal(payload_shape(spec)).astype(np.float32))
    payload = encode_wire(noise, spec.boundary.wire)
    received = None if stage == 0 else payload
    index = iter(range(10**6))

    def run() -> None:
        mb = Microbatch(0, 0, next(index))
        if stage == spec.last_stage:
            engine.loss(mb, 0, received, tokens).read().result()
        else:
            engine.forward(mb, 0, received, tokens)
            engine.backward(mb, 0, payload).read().result()

    return run


def row(
    model: str, optimizer: OptimizerKind, precision: Precision, stage: int, device: str, times: int
) -> dict[str, Any]:
    """The figures of one stage."""
    spec = spec_of(model, optimizer, precision)
    narrow = narrowed(spec)
    wall_s, cpu_s = best(lambda: fingerprint(spec, stage, device, NONCE), times)
    found = {
        "model": model,
        "optimizer": optimizer.value,
        "precision": precision.value,
        "stage": stage,
        "wall_s": round(wall_s, 3),
        "cpu_s": round(cpu_s, 3),
        "bytes": len(fingerprint(spec, stage, device, NONCE).canonical()),
        "narrowed": f"d {narrow.model.hidden_size}, ffn {narrow.model.ffn_size}, {narrow.data.tokens} tokens",
        "parameters": count(run_shapes(narrow, stage)),
    }
    if count(run_shapes(spec, stage)) <= MAX_MEASURED:
        found["microbatch_s"] = round(best(microbatch(spec, stage, device), times)[1], 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="the smallest model, once")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    models = ["tiny"] if given.smoke else ["small", "llama-1b", "orion-100b"]
    rows = [
        row(model, optimizer, precision, stage, given.device, 1 if given.smoke else 3)
        for model in models
        for optimizer in (OptimizerKind.ADAMW, OptimizerKind.MUON)
        for precision in Precision
        for stage in (1, 2)
    ]
    report = {
        "class": device_class(given.device, given.threads),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "rows": rows,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
