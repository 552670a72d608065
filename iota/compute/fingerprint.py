"""The fingerprint of a device: the bits that a fixed suite of the run's own kernels gives for a nonce.

Devices of one class give equal fingerprints. Who has no device of a class cannot name its bits for a nonce
that it has not seen before, except by asking somebody who has one. A fingerprint does not show that its
device computed anything else.

The suite runs the code of training, with the run's dtypes, codec and optimizer, on values that the nonce
decides: one layer of the stage and all that the stage has besides, narrowed by `iota.model.narrowed`, and
single kernels over the run's own lengths (`iota.compute.wide_kernels`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import encode_wire
from iota.compute.accumulate import OpenStep
from iota.compute.clip import largest_of, mean_and_clip
from iota.compute.devices import device_of
from iota.compute.names import Microbatch
from iota.compute.optim import InnerOptimizer
from iota.compute.precision import operand_dtypes
from iota.compute.rounding import rounding_of
from iota.compute.seeded import SMALL, Seeded
from iota.compute.stage_pass import StagePass
from iota.compute.state import tensors_digest
from iota.compute.versions import Versions
from iota.compute.wide_kernels import wide_digest
from iota.model.layout import run_shapes
from iota.model.narrowed import narrowed
from iota.model.updates import clip_threshold, moment_shapes
from iota.model.weight_dtype import as_weights
from iota.protocol.fingerprints import Fingerprint
from iota.spec import RunSpec

_COUNT: Final = 3
"""Microbatches that the gradient of `step` is said to sum: no power of two, so that the mean rounds."""

_DOCUMENT: Final = 100
"""Tokens of a document, at most: random ids would hold too few that end one."""


def fingerprint(spec: RunSpec, stage: int, device: str | torch.device, nonce: str) -> Fingerprint:
    """The fingerprint of `device` for `stage` of a run; `nonce` as `fingerprint_nonce` gives it.

    It computes with the threads that torch is set to, and may run in any thread. No memory and no setting of
    the process is changed afterwards, except for `Device.make_deterministic`, as by an engine.
    """
    target = torch.device(device)
    device_of(target).make_deterministic()
    seeded, narrow = Seeded(nonce, target), narrowed(spec)
    forward, backward = _passes(narrow, stage, seeded)
    return Fingerprint(
        forward=forward,
        backward=backward,
        step=_step(narrow, stage, seeded),
        wide=wide_digest(spec, last=stage == spec.last_stage, seeded=seeded),
    )


def _passes(spec: RunSpec, stage: int, seeded: Seeded) -> tuple[str, str]:
    """Digests of a FORWARD (at the last stage a LOSS) and of its BACKWARD, as the engine runs them."""
    ran = StagePass(spec, stage, seeded.device)
    weights = as_weights(spec, seeded.weights(run_shapes(spec, stage)))
    opened = OpenStep(0, Versions(weights, 0, seeded.device, operand_dtypes(spec, stage)).operands(0))
    wire, shape = spec.boundary.wire, payload_shape(spec)
    received = None if ran.first else encode_wire(seeded.values("input", shape), wire)
    ids = (spec.data.sequences, spec.data.sequence_length + 1)
    tokens = seeded.tokens("tokens", ids, spec.model.vocab_size)
    if spec.data.eos_id is not None:
        tokens[:, ::_DOCUMENT] = spec.data.eos_id
    inputs = ran.inputs(received, tokens)
    graph = ran.graph(opened.leaves, inputs)
    if ran.last:
        made = {"loss": graph.out, "losses": ran.token_losses(opened.leaves, inputs)}
        gradient = None
    else:
        made = {"payload": encode_wire(graph.out, wire)}
        gradient = ran.received(encode_wire(seeded.values("gradient", shape), wire))
    at_entry, _ = opened.backward(graph.out, gradient, graph.entry, Microbatch(0, 0, 0))
    sent = at_entry if ran.first else encode_wire(at_entry, wire)
    return tensors_digest(made), tensors_digest({"payload": sent} | _named("sum", opened.sums))


def _step(spec: RunSpec, stage: int, seeded: Seeded) -> str:
    """Digest of a STEP with the run's learning rate after its warm-up."""
    shapes = run_shapes(spec, stage)
    weights = as_weights(spec, seeded.weights(shapes))
    sums = {name: seeded.values(f"sum.{name}", shape, SMALL) for name, shape in shapes.items()}
    norm = mean_and_clip(sums, _COUNT, clip_threshold(spec, stage), largest_of(sums.values()))
    inner = InnerOptimizer(spec.optimizer, weights)
    inner.load(seeded.moments(moment_shapes(spec.optimizer, shapes)))
    inner.update(weights, sums, spec.optimizer.lr, rounding_of(spec, epoch=0, step=0))
    made = _named("weight", weights) | _named("moment", inner.moments())
    return tensors_digest(made | {"norm": norm.cpu().double()})


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
