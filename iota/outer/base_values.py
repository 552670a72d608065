"""A stage's base as vectors, without torch: made from the seed, from a merge, or read part by part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import safetensors.numpy
from blake3 import blake3
from safetensors import SafetensorError

from iota.files.tensor_file import TensorFileError, check_tensors
from iota.model.initial_values import initial_tensors, initial_values
from iota.outer.merged_part import read_merged
from iota.outer.nesterov import OuterState, outer_step
from iota.outer.partition import PartError, Vector
from iota.outer.short_floats import widened
from iota.protocol.merkle import merkle_root
from iota.spec import RunSpec

_BLOCK: Final = 1 << 22
"""Weights that are rounded at a time."""


def seed_base(spec: RunSpec, stage: int, threads: int = 1) -> OuterState:
    """The base of epoch 0, which the run's seed gives, made by so many threads."""
    found = initial_values(spec, stage, threads)
    weights: Vector = np.concatenate([found[name].reshape(-1) for name in sorted(found)])
    return _start(weights)


def seed_partitions(spec: RunSpec, stage: int) -> Iterator[OuterState]:
    """The partitions of `seed_base`, with two copies of one tensor in memory and not the whole base."""
    size, rest = spec.outer.part_elements, np.empty(0, np.float32)
    for _, values in initial_tensors(spec, stage):
        rest = np.concatenate([rest, values.reshape(-1)])
        whole = rest.size - rest.size % size
        yield from (_start(rest[first : first + size]) for first in range(0, whole, size))
        rest = rest[whole:]
    if rest.size:
        yield _start(rest)


def _start(weights: Vector) -> OuterState:
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


def read_partition(spec: RunSpec, data: bytes, size: int) -> OuterState:
    """One partition of `size` elements from a part of a base. Raises PartError as `read_base_part`."""
    read = read_base_part(spec, data, size)
    return OuterState(read["weights"], read.get("momentum", np.zeros_like(read["weights"])))


def write_partition(spec: RunSpec, partition: OuterState) -> bytes:
    """The part of a base, as it is stored, with one partition."""
    kept = {"weights": partition.weights}
    return safetensors.numpy.save(kept | {"momentum": partition.momentum} if spec.outer.momentum else kept)


def partition_of(spec: RunSpec, base: OuterState, number: int) -> OuterState:
    """Views of one partition of a whole base."""
    first = number * spec.outer.part_elements
    own = slice(first, first + spec.outer.part_elements)
    return OuterState(base.weights[own], base.momentum[own])


def next_partition(spec: RunSpec, epoch: int, before: OuterState, merged: bytes | None) -> OuterState:
    """One partition of the base of `epoch` + 1, from that of `epoch` and the bytes of the merged one.

    No merged partition means that the stage keeps its base. Raises PartError.
    """
    if merged is None:
        return before
    return next_base(spec, epoch, before, read_merged(spec.outer.codec, merged, before.weights.size))


@dataclass(frozen=True)
class BaseRoots:
    """Two roots that give the digest of a base.

    Who commits to the weights that it started with, and names the other root, shows that they are the base's.
    """

    start: str
    """Merkle root over the partitions of the weights that a replica starts with."""
    rest: str
    """That of the outer momentum, `merkle.EMPTY` in a run without. Where replicas start with rounded weights,
    the root over two: that of the base's own weights, and this one."""

    @property
    def digest(self) -> str:
        """The digest (hex) of a base, as replicas agree on it and the spec pins it."""
        return merkle_root([self.start, self.rest])


class BaseHasher:
    """The roots of a base, from one partition after another."""

    def __init__(self, spec: RunSpec) -> None:
        self._rounds, self._momentum = spec.precision.holds_bf16, spec.outer.momentum > 0
        self._weights: list[str] = []
        self._rounded: list[str] = []
        self._momenta: list[str] = []

    def take(self, partition: OuterState) -> None:
        """Take the next partition."""
        self._weights.append(leaf(partition.weights))
        if self._rounds:
            self._rounded.append(_digest(nearest_bf16(partition.weights)))
        if self._momentum:
            self._momenta.append(leaf(partition.momentum))

    def roots(self) -> BaseRoots:
        """The roots, once all partitions were taken."""
        weights, momentum = merkle_root(self._weights), merkle_root(self._momenta)
        if not self._rounds:
            return BaseRoots(weights, momentum)
        return BaseRoots(merkle_root(self._rounded), merkle_root([weights, momentum]))


def leaf(part: Vector) -> str:
    """BLAKE3 (hex) of one partition's little-endian fp32: a leaf, as `iota.compute.commitment` has it."""
    return _digest(np.ascontiguousarray(part, dtype="<f4"))


def started(spec: RunSpec, weights: Vector) -> Vector:
    """The values, in fp32, of the weights that a replica starts with, from a base's finite ones."""
    if not spec.precision.holds_bf16:
        return weights
    found: Vector = np.empty_like(weights)
    for first in range(0, weights.size, _BLOCK):
        own = slice(first, first + _BLOCK)
        found[own] = widened(nearest_bf16(weights[own]))
    return found


def nearest_bf16(values: Vector) -> npt.NDArray[np.uint16]:
    """The bits of finite fp32 values as bf16, rounded to the nearest, of two to the even: as torch does."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")


def _digest(values: npt.NDArray[np.generic]) -> str:
    return blake3(values.view(np.uint8).data, max_threads=blake3.AUTO).hexdigest()
