"""Single kernels of training over a run's own lengths, with few rows: the part `wide` of a fingerprint.

Libraries choose a kernel by the sizes of an operation. Its lengths decide how a sum is split, and which
values are left to a loop without vector instructions. A narrowed layer has other lengths.

In bf16 a result seldom shows how a sum was split: its rounding hides it in nearly all values. Where the
terms of a sum are opposed in pairs, its rounding errors are all that is left of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from iota.compute.polar import polar
from iota.compute.precision import autocast
from iota.compute.scalar_of import scalar_of
from iota.compute.seeded import Seeded
from iota.compute.state import tensors_digest
from iota.model.layer import rms_norm
from iota.model.loss import cross_entropy
from iota.spec import OptimizerKind, RunSpec

_ROWS: Final = 64
_MAX_ATTENTION: Final = 2048
"""Tokens that are attended to: the cost grows with their square."""
_MAX_ACTIVATIONS: Final = 1 << 20
_LARGE: Final = 1024.0
"""Scores that are rounding errors of products of such values are about 1, so that softmax shows them."""
_UNEVEN: Final = 3.0
"""Queries of such size give weights of many magnitudes."""
_BLOCK: Final = 64
_SLICES: Final = 8
"""Activations are repeated, since the threads' shares end at few values, and one in 25 of those differs."""

Kernel = tuple[str, Tensor, list[Tensor]]
"""A name, a result, and the inputs at which its gradient is taken."""


def wide_digest(spec: RunSpec, *, last: bool, seeded: Seeded) -> str:
    """BLAKE3 (hex) of the results and gradients. `last`: with those of the stage that has the loss."""
    made: dict[str, Tensor] = {}
    with torch.enable_grad(), autocast(spec.precision, seeded.device):
        for name, out, inputs in _kernels(spec, last, seeded):
            given = seeded.values(f"{name}.out", out.shape).to(out.dtype)
            found = torch.autograd.grad(scalar_of(out, given), inputs)
            made |= {f"{name}.{index}": tensor.detach() for index, tensor in enumerate((out, *found))}
    made |= _activations(spec, seeded) | _orthogonal(spec, seeded)
    return tensors_digest(made)


def _kernels(spec: RunSpec, last: bool, seeded: Seeded) -> Iterator[Kernel]:
    """One after another, so that the graph of one is in memory at a time."""
    model, tokens = spec.model, spec.data.tokens
    lengths = {model.hidden_size, model.kv_heads * model.head_dim, model.ffn_size}
    if last:
        lengths.add(model.vocab_size)
    # A product sums over inputs in a forward, over outputs and over rows in a backward.
    yield _product(tokens, _ROWS, _ROWS, seeded)
    for length in sorted(lengths):
        yield _product(_ROWS, length, _ROWS, seeded)
        yield _product(_ROWS, length, _ROWS, seeded, opposed=True)
        yield _product(_ROWS, _ROWS, length, seeded)
    for rows, width in ((_ROWS, model.hidden_size), (tokens, _ROWS)):
        weight = torch.ones(width, device=seeded.device, requires_grad=True)
        x = _leaf(seeded, f"norm.{rows}.x", rows, width)
        yield f"norm.{rows}", rms_norm(x, weight, model.norm_eps), [x, weight]
    yield from (_attention(spec, seeded, sums) for sums in ("plain", "scores", "values"))
    if last:
        logits = _leaf(seeded, "loss.logits", _ROWS, model.vocab_size)
        labels = torch.from_numpy(seeded.tokens("loss.labels", (_ROWS,), model.vocab_size))
        yield "loss", cross_entropy(logits, labels.to(seeded.device)), [logits]


def _product(rows: int, inputs: int, outputs: int, seeded: Seeded, *, opposed: bool = False) -> Kernel:
    name = f"linear.{rows}.{inputs}.{outputs}.{opposed}"
    x, w = seeded.values(f"{name}.x", (rows, inputs)), seeded.values(f"{name}.w", (outputs, inputs))
    if opposed:
        _oppose(x, w)
    x, w = x.requires_grad_(), w.requires_grad_()
    return name, F.linear(x, w), [x, w]


def _attention(spec: RunSpec, seeded: Seeded, sums: str) -> Kernel:
    """Of one head. `sums`: `plain`, or what is opposed: the products of its scores, or its values."""
    name, length = f"attention.{sums}", min(spec.data.sequence_length, _MAX_ATTENTION)
    q, k, v = (seeded.values(f"{name}.{part}", (1, 1, length, spec.model.head_dim)) for part in "qkv")
    if sums == "scores":
        _oppose(q, k)
        q, k = q * _LARGE, k * _LARGE
    elif sums == "values":
        # Keys of equal scores have opposed values, in blocks since a token sees those before it alone.
        for low in range(0, length, _BLOCK):
            block = slice(low, low + _BLOCK)
            _oppose(k[..., block, :].mT, v[..., block, :].mT)
        q = q * _UNEVEN
    q, k, v = q.requires_grad_(), k.requires_grad_(), v.requires_grad_()
    return name, F.scaled_dot_product_attention(q, k, v, is_causal=True), [q, k, v]


def _oppose(x: Tensor, y: Tensor) -> None:
    """Change x and y so that each sum of x · y over the last dimension is 0 but for rounding."""
    length = x.shape[-1]
    half = length // 2
    x[..., length - half :] = x[..., :half].flip(-1)
    y[..., length - half :] = -y[..., :half].flip(-1)


def _activations(spec: RunSpec, seeded: Seeded) -> dict[str, Tensor]:
    """SwiGLU's activation and its gradient over as many values as a microbatch has, from several starts."""
    dtype = torch.bfloat16 if spec.precision.computes_bf16 else torch.float32
    count = min(spec.data.tokens * spec.model.ffn_size, _MAX_ACTIVATIONS)
    x_N, gradient_N = (seeded.values(f"activation.{part}", (count,)).to(dtype) for part in ("x", "out"))
    made: dict[str, Tensor] = {}
    for start in range(_SLICES):
        x = x_N[start:].requires_grad_()
        with torch.enable_grad():
            out = F.silu(x)
        (found,) = torch.autograd.grad(scalar_of(out, gradient_N[start:]), x)
        made |= {f"activation.{start}.0": out.detach(), f"activation.{start}.1": found}
    return made


def _orthogonal(spec: RunSpec, seeded: Seeded) -> dict[str, Tensor]:
    """Muon's updates of matrices as long as the layer's: their products are in a dtype of its own."""
    if spec.optimizer.kind is not OptimizerKind.MUON:
        return {}
    lengths = sorted({spec.model.hidden_size, spec.model.ffn_size})
    shapes = [shape for length in lengths for shape in ((1, _ROWS, length), (1, length, _ROWS))]
    return {f"muon.{shape}": polar(seeded.values(f"muon.{shape}", shape)) for shape in shapes}


def _leaf(seeded: Seeded, name: str, *shape: int) -> Tensor:
    return seeded.values(name, shape).requires_grad_()
