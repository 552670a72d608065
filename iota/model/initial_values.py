"""Initial weights. They depend on the seed and the parameters' names, and not on the cut. Without torch.

Their bits are the same on every machine: a BLAKE3 stream gives integers, and what follows are single
float64 operations, which IEEE 754 defines exactly. No function whose last bit a library or an instruction
set decides (log, cos) takes part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from iota.codec.shapes import boundary_parameters
from iota.model.layout import run_shapes
from iota.spec import RunSpec

Values = npt.NDArray[np.float32]
_RESIDUAL = ("self_attn.o_proj.weight", "mlp.down_proj.weight")
"""Projections whose output is added to the residual stream."""
_ADDENDS = 4
"""16-bit integers that are summed for one weight."""
_MEAN = _ADDENDS * 65535 / 2
_DEVIATION = math.sqrt(_ADDENDS * (65536**2 - 1) / 12)
_BLOCK = 1 << 14
"""Weights that are made at a time. Part of the format: it decides which integers are summed."""


def initial_values(spec: RunSpec, stage: int, threads: int = 1) -> dict[str, Values]:
    """fp32 weights of `stage`, sorted by name, made by so many threads: see `initial_tensors`."""
    return dict(initial_tensors(spec, stage, threads))


def codec_values(spec: RunSpec, stage: int, threads: int = 1) -> dict[str, Values]:
    """Those of the codecs' parameters alone."""
    codec = boundary_parameters(spec.model, spec.boundary, stage, spec.layout.stages)
    return {name: _random(spec, name, p.shape, p.std, threads) for name, p in codec.items()}


def initial_tensors(spec: RunSpec, stage: int, threads: int = 1) -> Iterator[tuple[str, Values]]:
    """(name, fp32 weights) of `stage`, one tensor after another by name, made by so many threads.

    Matrices have standard deviation `init_std`. With `depth_scaled_init` it is divided by sqrt(2L) for the 2L
    projections into the residual stream (Radford et al., GPT-2, 2019, section 2.3). Their distribution is a
    sum of four uniform ones (Irwin-Hall): close to a normal one, and within 3.5 standard deviations. Norms
    are 1. Codecs define their own initial values.
    """
    codec = boundary_parameters(spec.model, spec.boundary, stage, spec.layout.stages)
    residual = math.sqrt(2 * spec.model.layers) if spec.model.depth_scaled_init else 1.0
    for name, shape in run_shapes(spec, stage).items():
        if name in codec:
            yield name, _random(spec, name, shape, codec[name].std, threads)
        elif name.endswith("norm.weight"):
            yield name, np.ones(shape, np.float32)
        else:
            std = spec.model.init_std / (residual if name.endswith(_RESIDUAL) else 1.0)
            yield name, _random(spec, name, shape, std, threads)


def _random(spec: RunSpec, name: str, shape: tuple[int, ...], std: float, threads: int) -> Values:
    """Values with mean 0 and standard deviation `std`: about 130 million a second on one thread."""
    if std == 0:
        return np.zeros(shape, np.float32)
    stream = blake3(f"iota/init/2\n{spec.seed}\n{name}".encode())
    values = np.empty(math.prod(shape), dtype=np.float32)
    scale = std / _DEVIATION

    def fill(first: int) -> None:
        block = values[first : first + _BLOCK]
        # The whole block is drawn even where less is left, so that a value depends on its index alone.
        drawn = stream.digest(length=2 * _ADDENDS * _BLOCK, seek=2 * _ADDENDS * first)
        sums = np.frombuffer(drawn, dtype="<u2").reshape(_ADDENDS, _BLOCK).sum(axis=0, dtype=np.int64)
        block[:] = (sums[: block.size] - _MEAN) * scale

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, range(0, values.size, _BLOCK)))
    return values.reshape(shape)
