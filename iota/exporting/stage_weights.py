"""The weights of one stage from the files of its base, with little more than the stage in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from iota.exporting.facts import Facts
from iota.objects import BaseKey, max_bytes, parse_key, part_count, part_sizes
from iota.outer.base import initial_base, named_weights
from iota.outer.base_values import BaseHasher, read_partition
from iota.outer.partition import PartError
from iota.protocol.records import BaseRecord
from iota.spec import RunSpec
from iota.store import StoreError


class BadBase(StoreError):
    """A stage's base is not what its replicas agreed on."""


async def checked_record(facts: Facts, epoch: int, stage: int) -> BaseRecord:
    """The record of a base, with its parts in the order of their numbers.

    Raises BadBase where it names other objects than the parts of this base, or larger or empty ones.
    """
    spec = facts.spec
    record = await facts.base(epoch, stage)
    wanted = [BaseKey(spec.id, epoch, stage, n) for n in range(part_count(spec, stage))]
    named = {_whoever_wrote(part.key): part for part in record.parts}
    if len(record.parts) != len(wanted) or named.keys() != set(wanted):
        raise BadBase(f"the base of stage {stage} is recorded with other parts than it has")
    parts = tuple(named[key] for key in wanted)
    if not all(0 < part.size <= max_bytes(spec, wanted[0], stage) for part in parts):
        raise BadBase(f"the base of stage {stage} is recorded with parts that are empty, or too large")
    return record.model_copy(update={"epoch": epoch, "stage": stage, "parts": parts})


def _whoever_wrote(key: str) -> BaseKey | None:
    """The part of a base that a key names, without its writer; None for any other key."""
    found = parse_key(key)
    return replace(found, hotkey="") if isinstance(found, BaseKey) else None


def initial_stage(spec: RunSpec, stage: int) -> dict[str, Tensor]:
    """The weights of a stage before training, by name."""
    return named_weights(spec, stage, initial_base(spec, stage).weights)


def read_stage(spec: RunSpec, record: BaseRecord, files: Sequence[Path]) -> dict[str, Tensor]:
    """The weights of a stage by name, from the files of its base's parts in order.

    Raises:
        BadBase: the parts are malformed, or do not have the digest that the replicas agreed on.
    """
    sizes = part_sizes(spec, record.stage)
    weights = np.empty(sum(sizes), np.float32)
    hasher, first = BaseHasher(spec), 0

    for path, size in zip(files, sizes, strict=True):
        try:
            partition = read_partition(spec, path.read_bytes(), size)
        except PartError as error:
            raise BadBase(f"the base of stage {record.stage} is damaged: {error}") from error
        weights[first : first + size] = partition.weights
        hasher.take(partition)
        first += size
    if hasher.roots().digest != record.digest:
        raise BadBase(f"the base of stage {record.stage} is not the one that its replicas agreed on")
    return named_weights(spec, record.stage, weights)
