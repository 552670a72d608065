"""A miner's part in the end of an epoch: its pseudo-gradient, parts to merge, and bases."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import numpy as np

from iota.client.run_objects import RunObjects
from iota.objects import BaseKey, DeltaKey, MergedKey, part_sizes
from iota.outer import ReplicaPart, open_delta_codec, open_merge_rule
from iota.outer.base import base_parts, read_base
from iota.outer.nesterov import OuterState
from iota.outer.partition import Vector, part_bytes, read_part, split
from iota.protocol.events import MergeAssign
from iota.protocol.messages import BaseStored, Delta, Merged, StoredObject
from iota.spec import RunSpec


async def store_delta(
    spec: RunSpec, objects: RunObjects, hotkey: str, stage: int, epoch: int, delta: Vector
) -> Delta:
    """Store a pseudo-gradient in its partitions."""
    parts = [open_delta_codec().encode(part) for part in split(delta, spec.outer.part_elements)]
    stored = await asyncio.gather(
        *(objects.put(str(DeltaKey(spec.id, epoch, stage, hotkey, n)), data) for n, data in enumerate(parts))
    )
    return Delta(epoch=epoch, parts=tuple(stored))


async def merge_part(
    spec: RunSpec, objects: RunObjects, hotkey: str, event: MergeAssign, urls: Mapping[str, str]
) -> Merged:
    """Merge one partition of one stage, to the bit, and store it."""
    elements = part_sizes(spec, event.stage)[event.part]
    given = await objects.all_stored([c.stored for c in event.contributions], urls)

    def merge() -> bytes:
        codec, rule = open_delta_codec(), open_merge_rule()
        parts = [
            ReplicaPart(c.hotkey, c.tokens, codec.decode(data, elements))
            for c, data in zip(event.contributions, given, strict=True)
        ]
        return part_bytes(rule(parts))

    data = await asyncio.to_thread(merge)
    key = str(MergedKey(spec.id, event.epoch, event.stage, event.part, hotkey))
    stored = await objects.put(key, data, urls.get(key))
    return Merged(epoch=event.epoch, stage=event.stage, part=event.part, stored=stored)


async def fetch_merged(
    spec: RunSpec, objects: RunObjects, stage: int, parts: Sequence[StoredObject], urls: Mapping[str, str]
) -> Vector:
    """The merged pseudo-gradient of a stage."""
    data = await objects.all_stored(parts, urls)
    sizes = part_sizes(spec, stage)
    return np.concatenate([read_part(d, n) for d, n in zip(data, sizes, strict=True)])


async def fetch_base(
    spec: RunSpec, objects: RunObjects, stage: int, parts: Sequence[StoredObject], urls: Mapping[str, str]
) -> OuterState:
    data = await objects.all_stored(parts, urls)
    return await asyncio.to_thread(read_base, spec, stage, data)


async def store_base(
    spec: RunSpec, objects: RunObjects, stage: int, epoch: int, base: OuterState, digest: str
) -> BaseStored:
    data = await asyncio.to_thread(base_parts, spec, base)
    stored = await asyncio.gather(
        *(objects.put(str(BaseKey(spec.id, epoch, stage, n)), part) for n, part in enumerate(data))
    )
    return BaseStored(epoch=epoch, digest=digest, parts=tuple(stored))
