"""A process's training and fingerprints, as digests. Its environment and its arguments decide the kernels.

    python -m tests.support.device_bits THREADS CASE...

A case is `<precision>-<optimizer>-<stage>` of a run of three stages. The result is JSON: `class` is the
device class, `cases` has the digest of real ops and the fingerprint of each case.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor

from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import encode_wire
from iota.compute import Microbatch
from iota.compute.determinism import device_class
from iota.compute.engine import Engine
from iota.compute.fingerprint import fingerprint
from iota.compute.state import StageState, tensors_digest
from iota.model.presets import PRESETS
from iota.spec import OptimizerKind, Precision, RunSpec
from tests.support.small_spec import small_spec

NONCE = "5e" * 32


def run_of(precision: str, optimizer: str) -> RunSpec:
    """Three stages of the preset `tiny`, with microbatches as `iota up` proposes them."""
    spec = small_spec(
        model=PRESETS["tiny"].model_dump(),
        layout={"cuts": [1, 2, 1]},
        boundary={"ratio": 16, "anchor_rank": 32},
        data={"manifest": "0" * 64, "sequence_length": 256, "sequences": 4},
        optimizer={"kind": OptimizerKind(optimizer), "lr": 1e-3},
    )
    return RunSpec.model_validate({**spec.model_dump(), "precision": Precision(precision)})


def training_digest(spec: RunSpec, stage: int) -> str:
    """BLAKE3 (hex) of what two microbatches and a STEP of `stage` give."""
    engine, drawn = Engine(spec, stage), np.random.default_rng(0)
    engine.load(StageState.initial(spec, stage), version=0)
    hasher = blake3()
    for index in range(2):
        mb = Microbatch(0, 0, index)
        tokens = drawn.integers(
            0, spec.model.vocab_size, (spec.data.sequences, spec.data.sequence_length + 1)
        )
        received = None if stage == 0 else _payload(spec, drawn)
        if stage == spec.last_stage:
            outputs = [engine.loss(mb, 0, received, tokens)]
        else:
            outputs = [engine.forward(mb, 0, received, tokens), engine.backward(mb, 0, _payload(spec, drawn))]
        for output in outputs:
            hasher.update(output.read().result().digest.encode())
    engine.step(0, 2, spec.optimizer.lr)
    state = engine.state()
    hasher.update((tensors_digest(state.weights) + tensors_digest(state.moments)).encode())
    return hasher.hexdigest()


def measure(threads: int, cases: list[str]) -> dict[str, Any]:
    """Sets the threads of this process, and computes what the module says."""
    torch.set_num_threads(threads)
    found = {}
    for case in cases:
        precision, optimizer, stage = case.rsplit("-", 2)
        spec = run_of(precision, optimizer)
        made = fingerprint(spec, int(stage), "cpu", NONCE)
        found[case] = {"training": training_digest(spec, int(stage)), "fingerprint": made.model_dump()}
    return {"class": device_class("cpu", threads), "cases": found}


def _payload(spec: RunSpec, drawn: np.random.Generator) -> Tensor:
    values = drawn.standard_normal(payload_shape(spec)).astype(np.float32)
    return encode_wire(torch.from_numpy(values), spec.boundary.wire)


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), sys.argv[2:])))
