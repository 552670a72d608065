"""Initial weights: a function of the run's seed and each parameter's name, and so of no cut."""

from __future__ import annotations

import math

import torch
from blake3 import blake3
from torch import Tensor

from iota.model.layout import run_shapes
from iota.spec import RunSpec

_RESIDUAL = ("self_attn.o_proj.weight", "mlp.down_proj.weight")


def initial_weights(spec: RunSpec, stage: int) -> dict[str, Tensor]:
    """fp32 weights of `stage` on the CPU, names sorted.

    Normal with `init_std`, divided by sqrt(2L) where a projection writes to the residual stream;
    norms 1; codec maps end in zeros and anchors have a zero basis, so that boundaries start as
    projections.
    """
    return {name: _initial(spec, name, shape) for name, shape in run_shapes(spec, stage).items()}


def _initial(spec: RunSpec, name: str, shape: tuple[int, ...]) -> Tensor:
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    if name.endswith((".bias", ".outer.weight", "anchor.basis")):
        return torch.zeros(shape)
    std = spec.model.init_std
    if name.endswith("anchor.tokens"):
        # rows of unit length: the zero basis then learns at the optimizer's own pace
        std = 1 / math.sqrt(spec.boundary.anchor_rank)
    elif name.endswith(_RESIDUAL):
        std /= math.sqrt(2 * spec.model.layers)
    seed = blake3(f"iota/init/1\n{spec.seed}\n{name}".encode()).digest()[:8]
    generator = torch.Generator().manual_seed(int.from_bytes(seed, "little") >> 1)
    return torch.empty(shape).normal_(0.0, std, generator=generator)
