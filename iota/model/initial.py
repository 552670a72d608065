"""Initial weights. They depend on the run's seed and the parameters' names, and not on the cut."""

from __future__ import annotations

import math

import torch
from blake3 import blake3
from torch import Tensor

from iota.codec.shapes import boundary_parameters
from iota.model.layout import run_shapes
from iota.spec import RunSpec

_RESIDUAL = ("self_attn.o_proj.weight", "mlp.down_proj.weight")
"""Projections whose output is added to the residual stream."""


def initial_weights(spec: RunSpec, stage: int) -> dict[str, Tensor]:
    """fp32 weights of `stage` on the CPU, sorted by name.

    Matrices are normal with standard deviation `init_std`, divided by sqrt(2L) for projections into the
    residual stream (Radford et al., GPT-2, 2019). Norms are 1. Codecs define their own initial values.
    """
    codec = boundary_parameters(spec.model, spec.boundary, stage, spec.layout.stages)
    found = {}
    for name, shape in run_shapes(spec, stage).items():
        if name in codec:
            found[name] = _normal(spec, name, shape, codec[name].std)
        elif name.endswith("norm.weight"):
            found[name] = torch.ones(shape)
        else:
            residual = math.sqrt(2 * spec.model.layers) if name.endswith(_RESIDUAL) else 1.0
            found[name] = _normal(spec, name, shape, spec.model.init_std / residual)
    return found


def _normal(spec: RunSpec, name: str, shape: tuple[int, ...], std: float) -> Tensor:
    if std == 0:
        return torch.zeros(shape)
    seed = blake3(f"iota/init/1\n{spec.seed}\n{name}".encode()).digest()[:8]
    generator = torch.Generator().manual_seed(int.from_bytes(seed, "little") >> 1)
    return torch.empty(shape).normal_(0.0, std, generator=generator)
