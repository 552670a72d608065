"""Initial weights: a function of the run's seed and each parameter's name, and so of no cut."""

from __future__ import annotations

import math

import torch
from blake3 import blake3
from torch import Tensor

from iota.codec.shapes import boundary_parameters
from iota.model.layout import run_shapes
from iota.spec import RunSpec

_RESIDUAL = ("self_attn.o_proj.weight", "mlp.down_proj.weight")


def initial_weights(spec: RunSpec, stage: int) -> dict[str, Tensor]:
    """fp32 weights of `stage` on the CPU, names sorted.

    Normal with `init_std`, divided by sqrt(2L) where a projection writes to the residual stream;
    norms 1; a codec says how its own parameters start.
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
