"""What a validator's replay of a segment costs at a large stage: nanoseconds and bytes a parameter.

The middle stage of three, of `--layers` layers of the preset `--model`, in the pipeline `sync`. Each phase is
done once, by the functions that an audit calls:

    base     make the weights from the seed; a later base is fetched, and checked as a snapshot is
    write    the miner writes a kept state, synced, for the other phases to read
    read     read a fetched state, check its form, its values and its roots, and give it to the engine
    op       FORWARD and BACKWARD of one microbatch of `--tokens` tokens, a token
    step     a STEP of one such layer, whose matrices are those of the stage
    roots    the commitment to the replay's state: the comparison on one device class
    compare  the distances from the miner's state: the comparison across classes

`cpu` is the time of the process with one thread, `clock` has what the machine did besides. `segment` puts
them together for `--steps` steps of `--microbatches` microbatches at 6.5 billion parameters.

    python scripts/bench_segment.py                 # JSON; 11 GB of memory
    python scripts/bench_segment.py --smoke         # a tiny stage
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from iota.codec.shapes import payload_shape, payload_size
from iota.codec.wire_dtype import encode_wire
from iota.compute import Microbatch
from iota.compute.commitment import commitment
from iota.compute.engine import Engine
from iota.compute.state import StageState, load_state, save_state
from iota.model.layout import count, run_shapes
from iota.model.presets import PRESETS
from iota.spec import OptimizerKind, Precision, RunSpec
from iota.swarm.options import SwarmOptions
from validator.audits.state_distances import state_distances

FULL = 6.5e9
"""Parameters of the largest stage that the design counts with."""
STAGE = 1

T = TypeVar("T")
Seconds = dict[str, dict[str, float]]


def spec_of(given: argparse.Namespace, layers: int) -> RunSpec:
    """A run of three stages, of which the middle one has so many layers."""
    options = SwarmOptions.of(
        stages=3, optimizer=OptimizerKind(given.optimizer), pipeline="sync", sequences=1,
        sequence_length=given.tokens, steps_per_epoch=given.steps, microbatches=given.microbatches,
        values={"model": {**PRESETS[given.model].model_dump(), "vocab_size": 257, "layers": layers + 2}},
    )  # fmt: skip
    spec = options.spec("0" * 64, 257)
    changes = {"layout": {**spec.layout.model_dump(), "cuts": [1, layers, 1]}, "precision": given.precision}
    return RunSpec.model_validate({**spec.model_dump(), **changes})


class Bench:
    """The phases of one replay, timed."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.spec = given, spec_of(given, given.layers)
        self.seconds: Seconds = {}
        noise = np.random.default_rng(0).standard_normal(payload_shape(self.spec)).astype(np.float32)
        self.payload = encode_wire(torch.from_numpy(noise), self.spec.boundary.wire)
        self.tokens = np.zeros((self.spec.data.sequences, given.tokens + 1), np.int32)

    def timed(self, phase: str, work: Callable[[], T]) -> T:
        """The result of some work, whose seconds are kept."""
        clock, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.seconds[phase] = {"clock": time.perf_counter() - clock, "cpu": time.process_time() - cpu}
        return result

    def op(self, engine: Engine) -> None:
        """FORWARD and BACKWARD of a microbatch."""
        mb = Microbatch(0, 0, 0)
        engine.forward(mb, 0, self.payload, self.tokens).read().result()
        engine.backward(mb, 0, self.payload).read().result()

    def step(self) -> int:
        """A STEP of a stage of one layer; its parameters."""
        spec = spec_of(self.given, 1)
        engine = Engine(spec, STAGE)
        engine.load(StageState.initial(spec, STAGE), version=0)
        self.op(engine)
        self.timed("step", lambda: engine.step(0, 1, spec.optimizer.lr))
        return count(run_shapes(spec, STAGE))

    def state(self, path: Path) -> None:
        """All phases of a whole stage. The state's file is left at `path`."""
        spec, part = self.spec, self.spec.outer.part_elements
        engine = Engine(spec, STAGE)
        engine.load(self.timed("base", lambda: StageState.initial(spec, STAGE)), version=0)
        made = engine.state(copy=False)
        roots = commitment(made, part)
        self.timed("write", lambda: save_state(made, path, roots))
        theirs = self.timed("read", lambda: load_state(path, spec, STAGE))
        engine.load(theirs, version=0)
        self.timed("op", lambda: self.op(engine))
        mine = engine.state(copy=False)
        self.timed("roots", lambda: commitment(mine, part))
        self.timed("compare", lambda: state_distances(theirs, theirs, mine))


def report(bench: Bench, layer: int, size: int) -> dict[str, object]:
    """Nanoseconds a parameter of each phase, and what they make of a segment at full size."""
    given, parameters = bench.given, count(run_shapes(bench.spec, STAGE))
    divisors = {"op": parameters * given.tokens, "step": layer}
    each = {
        phase: {kind: s / divisors.get(phase, parameters) for kind, s in found.items()}
        for phase, found in bench.seconds.items()
    }
    work = given.steps * given.microbatches * given.tokens

    def segment(kind: str, end: str) -> float:
        once = each["read"][kind] + each[end][kind]
        a_parameter: float = once + work * each["op"][kind] + given.steps * each["step"][kind]
        return FULL * a_parameter

    state = size / parameters
    return {
        "parameters": parameters,
        "bytes_a_parameter": round(state, 2),
        "ns_a_parameter": {
            phase: {kind: round(1e9 * s, 3) for kind, s in found.items()} for phase, found in each.items()
        },
        "segment_at_6.5e9": {
            "tokens": work,
            "frames_gb": round(4 * given.steps * given.microbatches * payload_size(bench.spec) / 1e9, 3),
            "state_gb": round(FULL * state / 1e9, 1),
            "cpu_s": {end: round(segment("cpu", end)) for end in ("roots", "compare")},
            "cpu_s_without_ops": round(segment("cpu", "roots") - FULL * work * each["op"]["cpu"]),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--smoke", action="store_true", help="a tiny stage")
    parser.add_argument("--model", choices=PRESETS, default="llama-1b")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128, help="of a microbatch, in one sequence")
    parser.add_argument("--steps", type=int, default=5, help="of a segment")
    parser.add_argument("--microbatches", type=int, default=8, help="of a miner in a step")
    parser.add_argument("--optimizer", choices=list(OptimizerKind), default=OptimizerKind.MUON)
    parser.add_argument("--precision", choices=list(Precision), default=Precision.FP32)
    parser.add_argument("--folder", type=Path, help="where the state is written; a temporary folder")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.smoke:
        given.model, given.layers, given.tokens = "tiny", 2, 64
    bench = Bench(given)
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        bench.state(Path(folder) / "state")
        size = (Path(folder) / "state").stat().st_size
    layer = bench.step()
    said = {name: str(getattr(given, name)) for name in ("model", "optimizer", "precision")}
    print(json.dumps({**said, **report(bench, layer, size)}, indent=2))


if __name__ == "__main__":
    main()
