"""A stage's base as vectors, without torch: made from the seed, from a merge, or read part by part."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import Final

import numpy as np
import safetensors.numpy
from blake3 import blake3
from safetensors import SafetensorError

from iota.files.tensor_file import TensorFileError, check_tensors
from iota.model.initial_values import initial_tensors, initial_values
from iota.outer.nesterov import OuterState, outer_step
from iota.outer.partition import PartError, Vector, part_bytes, read_part
from iota.spec import RunSpec

_CHUNK: Final = 1 << 24
"""Bytes that are hashed at a time from a file."""


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
    return next_base(spec, epoch, before, read_part(merged, before.weights.size))


class BaseHasher:
    """`iota.outer.base.base_digest` with one partition in memory, as a context manager. All methods block.

    The digest has the momentum after all weights, so that it waits in a file: 4 bytes a parameter.
    """

    def __init__(self, spec: RunSpec) -> None:
        self._spec, self._hasher = spec, blake3()
        self._momenta = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `__exit__`
        self._hashed = 0
        """Bytes of the momentum."""

    def __enter__(self) -> BaseHasher:
        return self

    def __exit__(self, *_: object) -> None:
        self._momenta.close()

    def take(self, partition: OuterState) -> None:
        """Take the next partition."""
        self._hasher.update(part_bytes(partition.weights))
        if self._spec.outer.momentum:
            self._momenta.write(part_bytes(partition.momentum))

    def take_momentum(self) -> bool:
        """Once all partitions were taken, hash some of the momentum; False if none is left."""
        self._momenta.seek(self._hashed)
        chunk = self._momenta.read(_CHUNK)
        self._hasher.update(chunk)
        self._hashed += len(chunk)
        return bool(chunk)

    def digest(self) -> str:
        """The digest (hex), once all partitions were taken."""
        while self.take_momentum():
            pass
        return self._hasher.hexdigest()
