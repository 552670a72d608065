"""Bytes of a microbatch's graph under each activation policy. No torch.

The graph is what autograd saves of a pass besides weights and tables (`iota.model.layer`). The residual
stream and the norms are in fp32; what matrix products read and make has the compute dtype. A GPU's norm is
one kernel and saves half as much, so that KEEP is over-estimated there, by a seventh in bf16.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from iota.codec import open_codec
from iota.codec.boundary_codec import Side
from iota.settings import Activations
from iota.spec import RunSpec

LOSS_CHUNK: Final = 1024
"""Tokens whose logits exist at once: 0.5 GB in fp32 for a vocabulary of 128,256, and four times that with
what their loss and gradient need."""
POLICIES: Final = (Activations.KEEP, Activations.SELECTIVE, Activations.OFFLOAD, Activations.RECOMPUTE)
"""From the fastest to the one that needs least of the device."""
_FP32: Final = 4


@dataclass(frozen=True)
class Kept:
    """What a policy needs, in bytes."""

    graph: int
    """On the device for each microbatch between its forward and its backward."""
    working: int
    """On the device besides, in one pass: what is computed again, what comes back, gradients."""
    host: int = 0
    """Of the host for each microbatch."""


def kept_bytes(
    spec: RunSpec, stage: int, value_bytes: int, *, compiled: bool = False
) -> Mapping[Activations, Kept]:
    """Of each policy, in the order of `POLICIES`. `value_bytes`: size of a computed value, 2 in bf16.

    A compiled layer (`iota.compute.compiled`) never keeps what is cheap to compute again, and its attention
    keeps the same with documents as without.
    """
    if compiled:
        data = spec.data.model_copy(update={"mask_documents": False, "eos_id": None})
        spec = spec.model_copy(update={"data": data})
    found = {policy: _kept(spec, stage, policy, value_bytes) for policy in POLICIES}
    if compiled:
        selective, recompute = found[Activations.SELECTIVE], found[Activations.RECOMPUTE]
        less = spec.data.tokens * (
            _layer_bytes(spec, Activations.KEEP, value_bytes)
            - _layer_bytes(spec, Activations.SELECTIVE, value_bytes)
        )
        found[Activations.KEEP] = selective
        found[Activations.RECOMPUTE] = replace(recompute, working=recompute.working - less)
    return found


def graph_bytes(spec: RunSpec, stage: int, policy: Activations, value_bytes: int) -> int:
    """What autograd saves of a microbatch under a policy, on the device and the host together."""
    layer = _layer_bytes(spec, policy, value_bytes)
    return spec.data.tokens * spec.layout.cuts[stage] * layer + _ends_bytes(spec, stage, value_bytes)


def _kept(spec: RunSpec, stage: int, policy: Activations, value_bytes: int) -> Kept:
    ends = _ends_bytes(spec, stage, value_bytes)
    layers = graph_bytes(spec, stage, policy, value_bytes) - ends
    whole, own = (spec.data.tokens * _layer_bytes(spec, p, value_bytes) for p in (Activations.KEEP, policy))
    working = _gradients(spec, stage, value_bytes)
    match policy:
        case Activations.OFFLOAD:
            tensors = [spec.data.tokens * size for size in _selective_tensors(spec, value_bytes)]
            host = spec.layout.cuts[stage] * sum(map(_pinned, tensors))
            return Kept(graph=ends, working=working + whole + own, host=host)
        case Activations.RECOMPUTE:
            return Kept(graph=ends + layers, working=working + whole)
        case _:
            return Kept(graph=ends + layers, working=working + whole - own)


def _layer_bytes(spec: RunSpec, policy: Activations, value_bytes: int) -> int:
    """Saved of one layer for a token."""
    model = spec.model
    d, ffn = model.hidden_size, model.ffn_size
    if policy is Activations.RECOMPUTE:
        return _FP32 * d
    selective = sum(_selective_tensors(spec, value_bytes))
    if policy is not Activations.KEEP:
        return selective
    # The norms save what they scale and its factor, SwiGLU its activation. Products save what these made.
    return selective + 2 * _norm_bytes(d) + value_bytes * (2 * d + 2 * ffn)


def _selective_tensors(spec: RunSpec, value_bytes: int) -> list[int]:
    """Sizes, for a token, of the tensors of one layer that SELECTIVE keeps."""
    model, v = spec.model, value_bytes
    d, d_kv, ffn = model.hidden_size, model.kv_heads * model.head_dim, model.ffn_size
    norms, queries, keys, swiglu = [_FP32 * d] * 2, [v * d] * 2, [v * d_kv] * 2, [v * ffn] * 2
    # Attention saves q, k, v, its output and a sum for each head; with documents their joined outputs too.
    joined = [v * d] if spec.data.mask_documents else []
    return norms + queries + keys + joined + [_FP32 * model.heads] + swiglu


def _pinned(size: int) -> int:
    """What torch takes of pinned memory for a tensor: a power of two."""
    return 1 << (size - 1).bit_length()


def _norm_bytes(d: int) -> int:
    return _FP32 * (d + 1)


def _ends_bytes(spec: RunSpec, stage: int, value_bytes: int) -> int:
    """Saved of codecs, and of the last stage's norm and loss, which gives its gradients in the forward."""
    model, tokens = spec.model, spec.data.tokens
    codec, d = open_codec(spec.boundary.codec), model.hidden_size
    size = 0
    if stage:
        size += tokens * value_bytes * codec.saved_values(Side.DECODE, model, spec.boundary)
    if stage < spec.last_stage:
        return size + tokens * value_bytes * codec.saved_values(Side.ENCODE, model, spec.boundary)
    return size + tokens * (_norm_bytes(d) + (_FP32 + value_bytes) * d) + value_bytes * model.vocab_size * d


def _gradients(spec: RunSpec, stage: int, value_bytes: int) -> int:
    """Of one layer's values and of its largest parameter, or of the loss, while they are computed."""
    model, tokens = spec.model, spec.data.tokens
    d, ffn = model.hidden_size, model.ffn_size
    layer = tokens * (3 * _FP32 * d + 3 * value_bytes * ffn) + value_bytes * d * ffn
    if stage < spec.last_stage:
        return layer
    logits = min(tokens, LOSS_CHUNK) * model.vocab_size * (3 * _FP32 + 2 * value_bytes)
    return max(layer, logits + (_FP32 + value_bytes) * model.vocab_size * d)
