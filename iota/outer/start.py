"""Base 0 from existing weights: its digests, which the spec pins, and its parts in the store.

One piece of the weights is in memory at a time (a tensor of a Llama, a partition of another run's base), one
partition, and the parameters of a stage's codecs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import safetensors.numpy
from blake3 import blake3

from iota.model.initial_values import codec_values
from iota.model.layout import run_shapes
from iota.objects import BaseKey, part_sizes, start_key
from iota.outer.base_values import BaseHasher
from iota.outer.nesterov import OuterState
from iota.outer.partition import Vector
from iota.protocol.frames import StoredObject
from iota.protocol.records import START_RECORDS, BaseRecord
from iota.spec import InitSpec, RunSpec


class StartWeights(Protocol):
    """Weights that a run may start from: those of all parameters but the codecs', which begin as ever."""

    @property
    def source(self) -> str:
        """Where they come from, for people; at most 200 characters."""

    def pieces(self, name: str) -> Iterator[Vector]:
        """The parameter `name` in fp32, flat, in pieces that follow each other.

        Raises ValueError for what is not finite, and what reading raises.
        """


def pinned(spec: RunSpec, weights: StartWeights) -> RunSpec:
    """`spec` with the digests of the base that `weights` give: the spec of a run that starts from them.

    Raises:
        ValueError: a weight is not finite.
    """
    found = [_digest(spec, stage, weights) for stage in range(spec.layout.stages)]
    digests, largest = tuple(digest for digest, _ in found), max(size for _, size in found)
    init = InitSpec(source=weights.source, digests=digests, largest=largest)
    return RunSpec.model_validate({**spec.model_dump(), "init": init})


def store_start(spec: RunSpec, weights: StartWeights, put: Callable[[str, bytes], None]) -> None:
    """Store base 0 of a spec that `pinned` made: `put(key, data)` for each part, then for the records.

    `put` may leave out what is stored already, so that repeating a call resumes it.
    """
    records = []
    for stage in range(spec.layout.stages):
        parts = []
        for n, part in enumerate(_partitions(spec, stage, weights)):
            tensors = {"weights": part}
            if spec.outer.momentum:
                tensors["momentum"] = np.zeros_like(part)
            data = safetensors.numpy.save(tensors)
            key = str(BaseKey(spec.id, 0, stage, n))
            put(key, data)
            parts.append(StoredObject(key=key, digest=blake3(data).hexdigest(), size=len(data)))
        assert spec.init is not None
        records.append(BaseRecord(epoch=0, stage=stage, digest=spec.init.digests[stage], parts=tuple(parts)))
    put(start_key(spec.id), START_RECORDS.dump_json(tuple(records)))


def _digest(spec: RunSpec, stage: int, weights: StartWeights) -> tuple[str, float]:
    """`base_digest` of the base, without the base in memory, and its largest absolute weight."""
    hasher, largest = BaseHasher(spec), 0.0
    for part in _partitions(spec, stage, weights):
        hasher.take(OuterState(part, np.zeros_like(part)))
        largest = max(largest, float(part.max()), -float(part.min()))
    return hasher.roots().digest, largest


def _partitions(spec: RunSpec, stage: int, weights: StartWeights) -> Iterator[Vector]:
    """The stage's vector, partition by partition."""
    sizes = iter(part_sizes(spec, stage))
    part, filled = np.empty(next(sizes), np.float32), 0
    for vector in _vectors(spec, stage, weights):
        while vector.size:
            if filled == part.size:
                yield part
                part, filled = np.empty(next(sizes), np.float32), 0
            piece = vector[: part.size - filled]
            part[filled : filled + piece.size] = piece
            filled, vector = filled + piece.size, vector[piece.size :]
    yield part


def _vectors(spec: RunSpec, stage: int, weights: StartWeights) -> Iterator[Vector]:
    """The stage's parameters in fp32, flat, sorted by name as in `flatten`, in pieces. Raises ValueError."""
    codec = codec_values(spec, stage)
    for name in run_shapes(spec, stage):
        if name in codec:
            yield codec[name].reshape(-1)
        else:
            yield from weights.pieces(name)
