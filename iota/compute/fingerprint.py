"""The fingerprint of a device: the bits that a fixed suite of the run's own kernels gives for a nonce.

Devices of one class give equal fingerprints. Who has no device of a class cannot name its bits for a nonce that
it has not seen before, except by asking somebody who has one. A fingerprint does not show that its device made
anything else.

The suite runs the code of training, with the run's dtypes, codec and optimizer, on values that the nonce alone
decides:

| part | what | size |
|---|---|---|
| forward, backward, step | one layer with all that the stage has besides | `iota.model.narrowed` |
| wide | single kernels over lengths that are narrowed there | few rows, the run's own lengths |

Libraries choose a kernel by all sizes of an operation, and by its inner dimension how a sum is split. A narrow
layer has kernels of its own, and `wide` sums over the run's lengths.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from blake3 import blake3
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from iota.codec.shapes import Shapes, payload_shape
from iota.codec.wire_dtype import encode_wire
from iota.compute.accumulate import OpenStep
from iota.compute.clip import mean_and_clip
from iota.compute.determinism import make_deterministic
from iota.compute.names import Microbatch
from iota.compute.optim import InnerOptimizer, moment_shapes
from iota.compute.precision import autocast, bf16_names
from iota.compute.stage_pass import StagePass
from iota.compute.state import tensors_digest
from iota.compute.tokens import Tokens
from iota.compute.versions import Versions
from iota.model.layout import run_shapes
from iota.model.narrowed import narrowed
from iota.model.stage import token_loss
from iota.model.updates import clip_threshold
from iota.protocol.fingerprints import FINGERPRINT_DOMAIN, Fingerprint
from iota.spec import RunSpec

_ROWS: Final = 64
"""Rows of the kernels in `wide`."""
_MAX_ATTENTION: Final = 2048
"""Tokens over which `wide` attends: its cost grows with their square."""
_COUNT: Final = 3
"""Microbatches that the gradient of `step` is said to be a sum of: no power of two, so that the mean rounds."""
_SCALE: Final = 1e-3
"""Standard deviation of the gradients and moments of `step`."""


def fingerprint(spec: RunSpec, stage: int, device: str | torch.device, nonce: str) -> Fingerprint:
    """The fingerprint of `device` for `stage` of a run; `nonce` as `fingerprint_nonce` gives it.

    It computes with the threads that torch is set to, in any thread of the process, and keeps nothing. On CUDA
    it leaves the settings of `make_deterministic`, as an engine does; otherwise the process is as it was.
    """
    target = torch.device(device)
    make_deterministic(target)
    seeds, small = _Seeds(nonce, target), narrowed(spec)
    forward, backward = _passes(small, stage, seeds)
    return Fingerprint(
        forward=forward,
        backward=backward,
        step=_step(small, stage, seeds),
        wide=_wide(spec, stage == spec.last_stage, seeds),
    )


@dataclass(frozen=True)
class _Seeds:
    """Inputs of the suite, whose bits depend on the nonce and their names alone."""

    nonce: str
    device: torch.device

    def values(self, name: str, shape: tuple[int, ...], std: float = 1.0) -> Tensor:
        """fp32 values, uniform around 0. What rounds is single operations that IEEE 754 defines exactly."""
        drawn = np.frombuffer(self._stream(name).digest(length=4 * math.prod(shape)), "<i4")
        made = drawn.astype(np.float32) * np.float32(std * math.sqrt(3) / 2**31)
        return torch.from_numpy(made.reshape(shape)).to(self.device)

    def weights(self, shapes: Shapes) -> dict[str, Tensor]:
        """Weights with which activations keep their size from layer to layer."""
        return {
            name: self.values(name, shape, shape[-1] ** -0.5)
            if len(shape) > 1
            else 1 + self.values(name, shape, 0.1)
            for name, shape in shapes.items()
        }

    def moments(self, shapes: Shapes) -> dict[str, Tensor]:
        """Moments as after some steps: second moments are positive, step counts 7."""
        return {name: self._moment(name, shape) for name, shape in shapes.items()}

    def tokens(self, name: str, shape: tuple[int, ...], vocabulary: int) -> Tokens:
        """Token ids, int64."""
        drawn = self._stream(name).digest(length=8 * math.prod(shape))
        return (np.frombuffer(drawn, "<u8") % vocabulary).astype(np.int64).reshape(shape)

    def _moment(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if name.startswith("step."):
            return torch.full(shape, 7.0, device=self.device)
        values = self.values(name, shape, _SCALE)
        return values.square() if name.startswith("exp_avg_sq.") else values

    def _stream(self, name: str) -> blake3:
        return blake3(f"{FINGERPRINT_DOMAIN}\n{self.nonce}\n{name}".encode())


def _passes(spec: RunSpec, stage: int, seeds: _Seeds) -> tuple[str, str]:
    """Digests of a FORWARD (at the last stage a LOSS) and of its BACKWARD, as the engine runs them."""
    ran = StagePass(spec, stage, seeds.device)
    weights = seeds.weights(run_shapes(spec, stage))
    opened = OpenStep(0, Versions(weights, 0, seeds.device, bf16_names(spec, stage)).operands(0))
    wire, shape = spec.boundary.wire, payload_shape(spec)
    received = None if ran.first else encode_wire(seeds.values("input", shape), wire)
    ids = (spec.data.sequences, spec.data.sequence_length + 1)
    inputs = ran.inputs(received, seeds.tokens("tokens", ids, spec.model.vocab_size))
    graph = ran.run(opened.leaves, inputs, keep=True)
    if ran.last:
        made = {"loss": graph.out.detach(), "losses": ran.token_losses(opened.leaves, inputs)}
        gradient = None
    else:
        made = {"payload": encode_wire(graph.out, wire)}
        gradient = ran.received(encode_wire(seeds.values("gradient", shape), wire))
    at_entry = opened.backward(graph.out, gradient, graph.entry, Microbatch(0, 0, 0))
    sent = at_entry if ran.first else encode_wire(at_entry, wire)
    return tensors_digest(made), tensors_digest({"payload": sent} | _named("gradient", opened.sums))


def _step(spec: RunSpec, stage: int, seeds: _Seeds) -> str:
    """Digest of a STEP with a learning rate that moves every weight."""
    shapes = run_shapes(spec, stage)
    weights = seeds.weights(shapes)
    sums = {name: seeds.values(f"sum.{name}", shape, _SCALE) for name, shape in shapes.items()}
    norm = mean_and_clip(sums, _COUNT, clip_threshold(spec, stage))
    inner = InnerOptimizer(spec.optimizer, weights)
    inner.load(seeds.moments(moment_shapes(spec.optimizer, shapes)))
    inner.update(weights, sums, spec.optimizer.lr)
    made = _named("weight", weights) | _named("moment", inner.moments())
    return tensors_digest(made | {"norm": torch.tensor(norm, dtype=torch.float64)})


def _wide(spec: RunSpec, last: bool, seeds: _Seeds) -> str:
    """Digest of the results and gradients of single kernels over the run's own lengths."""
    made: dict[str, Tensor] = {}
    with torch.enable_grad(), autocast(spec.compute, seeds.device):
        for name, out, inputs in _wide_kernels(spec, last, seeds):
            gradient = torch.ones_like(out) if out.dim() == 0 else seeds.values(f"{name}.out", out.shape)
            found = torch.autograd.grad(out, inputs, gradient.to(out.dtype))
            made |= {f"{name}.{index}": tensor.detach() for index, tensor in enumerate((out, *found))}
    return tensors_digest(made)


def _wide_kernels(
    spec: RunSpec, last: bool, seeds: _Seeds
) -> Iterator[tuple[str, Tensor, list[Tensor]]]:
    """(name, result, the inputs whose gradients count), one kernel after another."""

    def leaf(name: str, *shape: int) -> Tensor:
        return seeds.values(name, shape).requires_grad_()

    model, tokens, length = spec.model, spec.data.tokens, min(spec.data.sequence_length, _MAX_ATTENTION)
    lengths = {model.hidden_size, model.kv_heads * model.head_dim, model.ffn_size}
    if last:
        lengths.add(model.vocab_size)
    products = [(tokens, _ROWS, _ROWS), *((_ROWS, n, _ROWS) for n in sorted(lengths))]
    products += [(_ROWS, _ROWS, n) for n in sorted(lengths)]
    for rows, inputs, outputs in products:
        name = f"linear.{rows}.{inputs}.{outputs}"
        x, w = leaf(f"{name}.x", rows, inputs), leaf(f"{name}.w", outputs, inputs)
        yield name, F.linear(x, w), [x, w]
    for rows, width in ((_ROWS, model.hidden_size), (tokens, _ROWS)):
        norm = LlamaRMSNorm(width, eps=model.norm_eps).to(seeds.device)
        x = leaf(f"norm.{rows}.x", rows, width)
        yield f"norm.{rows}", norm(x), [x, norm.weight]
    q, k, v = (leaf(f"attention.{part}", 1, 1, length, model.head_dim) for part in "qkv")
    yield "attention", F.scaled_dot_product_attention(q, k, v, is_causal=True), [q, k, v]
    if last:
        logits = leaf("loss.logits", 1, _ROWS, model.vocab_size)
        labels = torch.from_numpy(seeds.tokens("loss.labels", (1, _ROWS), model.vocab_size))
        yield "loss", token_loss(logits, labels.to(seeds.device)), [logits]


def _named(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
