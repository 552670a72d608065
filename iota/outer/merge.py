"""The merge of one partition from the contributions' bytes: what stays out of it, and the mean of the rest.

Miners that merge, the orchestrator where their copies differ, and validators that check them call this one
function. It is bitwise equal on every machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from iota.objects import part_sizes
from iota.outer.bounds import part_bounds
from iota.outer.delta_codecs import open_delta_codec
from iota.outer.direction import opposed, sample_start, sampled
from iota.outer.merge_rules import open_merge_rule
from iota.outer.merged_part import write_merged
from iota.outer.partition import NotFinite, PartError, Vector
from iota.protocol.events import Contribution, MergeAssign
from iota.protocol.merges import LeftOut
from iota.spec import RunSpec

Read = Callable[[Contribution], bytes | None]
"""The bytes in the store under a contribution's key, right or wrong; None where there are none."""


@dataclass(frozen=True)
class MergedPart:
    """A merged partition."""

    data: bytes
    """As `write_merged` writes it."""
    left_out: dict[str, LeftOut]
    """By hotkey, in order: the contributions that are not in it."""


def merge_part(spec: RunSpec, assign: MergeAssign, read: Read) -> MergedPart:
    """Merge one partition: the mean, by tokens and steps, of the contributions that are within their bounds.

    Who goes clearly against the others is left out too. The weights are those of the ones that stay; if none
    does, the result is zeros. `read` is called up to twice for each contribution; one is held at a time, and
    a sample of each.
    """
    elements = part_sizes(spec, assign.stage)[assign.part]
    codec, by_hotkey = open_delta_codec(spec.outer.codec), {c.hotkey: c for c in assign.contributions}
    start = sample_start(c.stored.digest for c in assign.contributions)
    left_out: dict[str, LeftOut] = {}
    samples = {}
    for hotkey in sorted(by_hotkey):
        part = _checked(spec, assign, by_hotkey[hotkey], read(by_hotkey[hotkey]), elements)
        if isinstance(part, LeftOut):
            left_out[hotkey] = part
        else:
            samples[hotkey] = sampled(part, start)
    all_tokens = {hotkey: each.tokens for hotkey, each in by_hotkey.items()}
    left_out |= dict.fromkeys(opposed(spec.outer.codec, samples, all_tokens), LeftOut.OPPOSED)

    def given(hotkey: str) -> Vector:
        return codec.decode(read(by_hotkey[hotkey]) or b"", elements)

    tokens = {hotkey: each.tokens for hotkey, each in by_hotkey.items() if hotkey not in left_out}
    steps = {h: max(1, spec.schedule.steps - by_hotkey[h].joined) for h in tokens}
    merged = open_merge_rule()(tokens, given, steps) if tokens else np.zeros(elements, np.float32)
    return MergedPart(write_merged(spec.outer.codec, merged), dict(sorted(left_out.items())))


def _checked(
    spec: RunSpec, assign: MergeAssign, given: Contribution, data: bytes | None, elements: int
) -> Vector | LeftOut:
    """A contribution with these bytes, decoded, or why it stays out of the merge."""
    if data is None:
        return LeftOut.MISSING
    if len(data) != given.stored.size or blake3(data).hexdigest() != given.stored.digest:
        return LeftOut.UNREADABLE
    try:
        part = open_delta_codec(spec.outer.codec).decode(data, elements)
    except NotFinite:
        return LeftOut.NOT_FINITE
    except PartError:
        return LeftOut.UNREADABLE
    bounds = part_bounds(spec, assign.epoch, assign.stage, assign.part, given.joined)
    return part if all(bound.holds(part) for bound in bounds) else LeftOut.OUT_OF_BOUNDS
