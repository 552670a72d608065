"""A stage's base (merged weights and outer momentum): its update, its digest and its parts in the store.

A base is fp32 in every precision: what a merge adds to it may be less than a bf16 weight can show.

Part n is a safetensors file with partition n of the stage's vector: `weights` and, if the run has an
outer momentum, `momentum`, both fp32 of one dimension.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from iota.console.counts import counted
from iota.model.layout import run_shapes
from iota.model.weight_dtype import as_weights
from iota.objects import part_sizes
from iota.outer.base_values import (
    BaseHasher,
    BaseRoots,
    partition_of,
    read_base_part,
    seed_base,
    write_partition,
)
from iota.outer.nesterov import OuterState
from iota.outer.partition import PartError, Vector, split
from iota.outer.pseudo_gradient import unflatten
from iota.spec import RunSpec


def initial_base(spec: RunSpec, stage: int) -> OuterState:
    """The base of epoch 0, which every node computes from the run's seed."""
    return seed_base(spec, stage, torch.get_num_threads())


def base_roots(spec: RunSpec, base: OuterState) -> BaseRoots:
    """The roots of a base; their `digest` is the base's."""
    hasher = BaseHasher(spec)
    for number in range(-(-base.weights.size // spec.outer.part_elements)):
        hasher.take(partition_of(spec, base, number))
    return hasher.roots()


def base_digest(spec: RunSpec, base: OuterState) -> str:
    """The digest (hex) of a base: `base_roots(spec, base).digest`."""
    return base_roots(spec, base).digest


def base_parts(spec: RunSpec, base: OuterState) -> list[bytes]:
    """The base as safetensors files, one for each partition."""
    weights, momentum = (split(vector, spec.outer.part_elements) for vector in (base.weights, base.momentum))
    return [write_partition(spec, OuterState(*vectors)) for vectors in zip(weights, momentum, strict=True)]


def read_base(spec: RunSpec, stage: int, parts: Sequence[bytes]) -> OuterState:
    """The base of `stage` from its parts.

    Raises PartError for wrong names, sizes or dtypes, and for values that are not finite.
    """
    sizes = part_sizes(spec, stage)
    if len(parts) != len(sizes):
        raise PartError(f"{counted(len(parts), 'part')} where the stage has {len(sizes)}")
    read = [read_base_part(spec, data, size) for data, size in zip(parts, sizes, strict=True)]
    weights = np.concatenate([part["weights"] for part in read])
    momentum = np.zeros_like(weights)
    if spec.outer.momentum:
        momentum = np.concatenate([part["momentum"] for part in read])
    return OuterState(weights, momentum)


def named_weights(spec: RunSpec, stage: int, weights_N: Vector) -> dict[str, Tensor]:
    """The weights that a replica starts with, by parameter name, from those of a base (N,).

    Where they are fp32 they are views of the base's, and share its memory. bf16 ones are rounded to the
    nearest.
    """
    shapes = run_shapes(spec, stage)
    like = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    return as_weights(spec, unflatten(torch.from_numpy(weights_N), like))
