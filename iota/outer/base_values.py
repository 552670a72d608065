"""A stage's base as vectors, without torch: made from the seed, from a merge, or read part by part."""

from __future__ import annotations

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from iota.files.tensor_file import TensorFileError, check_tensors
from iota.model.initial_values import initial_values
from iota.outer.nesterov import OuterState, outer_step
from iota.outer.partition import PartError, Vector
from iota.spec import RunSpec


def seed_base(spec: RunSpec, stage: int, threads: int = 1) -> OuterState:
    """The base of epoch 0, which the run's seed gives, made by so many threads."""
    found = initial_values(spec, stage, threads)
    weights: Vector = np.concatenate([found[name].reshape(-1) for name in sorted(found)])
    return OuterState(weights, np.zeros_like(weights))


def next_base(spec: RunSpec, epoch: int, base: OuterState, merged: Vector) -> OuterState:
    """The base of `epoch` + 1, from the base and the merged pseudo-gradient of `epoch`."""
    after = outer_step(base, merged, spec.outer.eta, spec.outer.momentum_at(epoch))
    # A run without momentum does not store it, so it stays zero as in `read_base`.
    return after if spec.outer.momentum else OuterState(after.weights, base.momentum)


def read_base_part(spec: RunSpec, data: bytes, size: int) -> dict[str, Vector]:
    """The vectors of `size` elements in one part of a base: `weights`, and `momentum` if the run has one.

    Raises PartError for wrong names, sizes or dtypes, and for values that are not finite.
    """
    names = {"weights", "momentum"} if spec.outer.momentum else {"weights"}
    try:
        check_tensors(data, dict.fromkeys(names, (size,)))
        tensors: dict[str, Vector] = safetensors.numpy.load(data)
    except (TensorFileError, SafetensorError) as error:
        raise PartError(f"not a part of this base: {error}") from error
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise PartError(f"{name} is not {size} finite fp32 values")
    return tensors
