"""Sizes of a run's objects. They follow from its spec, so that nothing is read before its size is known."""

from __future__ import annotations

from typing import assert_never

from iota.codec.shapes import payload_size
from iota.model.layout import count, run_shapes
from iota.model.moment_layout import moment_bytes
from iota.objects.delta_sizes import delta_bytes, merged_bytes, merged_sizes
from iota.objects.keys import BaseKey, DeltaKey, EvidenceKey, FrameKey, MergedKey, RunObject
from iota.protocol.frames import EvidenceItem
from iota.spec import Pipeline, RunSpec

_FP32 = 4
"""Bytes of an element."""
_MAX_HEADER = 4096
"""Upper bound of a frame's bytes besides its payload: prefix, header and signature."""
_FRAMES = 4
"""Frames that a replica reads and sends for one microbatch: from and to both sides."""
_ATTEMPTS = 5
"""Attempts at every microbatch of a step that one replica may have had, each with frames of its own: more
than an orchestrator makes before it drops a microbatch."""
_PART_SLACK = 1 << 20
"""Room for a file's header besides the values of a partition."""
_PLANNED = 64
"""Bytes of a hotkey and an index in a plan's JSON."""
_TENSOR_HEADER = 1792
"""Room in a safetensors header for one parameter: two weights, two moments, their scales and a step count."""


def part_sizes(spec: RunSpec, stage: int) -> list[int]:
    """Elements of each partition of a stage's vector, in order; all but the last have `part_elements`."""
    total, size = count(run_shapes(spec, stage)), spec.outer.part_elements
    return [min(size, total - first) for first in range(0, total, size)]


def part_count(spec: RunSpec, stage: int) -> int:
    """Number of partitions of a stage's vector."""
    return len(part_sizes(spec, stage))


def delta_part_bytes(spec: RunSpec, stage: int) -> list[int]:
    """Bytes of each encoded partition of a pseudo-gradient of a stage, in order."""
    return [delta_bytes(spec.outer.codec, elements) for elements in part_sizes(spec, stage)]


def merged_part_sizes(spec: RunSpec, stage: int, part: int, contributions: int) -> range:
    """The numbers of bytes that one merged partition may have."""
    return merged_sizes(spec.outer.codec, part_sizes(spec, stage)[part], contributions)


def stage_feedback_bytes(spec: RunSpec, stage: int) -> int:
    """Bytes of a replica's error feedback; 0 in a run without."""
    return spec.outer.codec.feedback_bytes * count(run_shapes(spec, stage))


def snapshot_bytes(spec: RunSpec, stage: int) -> int:
    """Upper bound (bytes) of a snapshot: weights, moments, in `delayed` the weights before, a header."""
    shapes = run_shapes(spec, stage)
    versions = 2 if spec.schedule.pipeline is Pipeline.DELAYED else 1
    weights = versions * spec.precision.weight_bytes * count(shapes)
    return weights + moment_bytes(spec.optimizer, shapes) + _TENSOR_HEADER * len(shapes) + (1 << 16)


def frames_bytes(spec: RunSpec, frames: int) -> int:
    """Upper bound (bytes) of so many frames, one after another."""
    return frames * (payload_size(spec) + _MAX_HEADER)


def largest_object(spec: RunSpec) -> int:
    """Upper bound (bytes) of every object of a run."""
    stages = range(spec.layout.stages)
    return max(
        max_bytes(spec, BaseKey(spec.id, 0, 0, 0), 0),
        frames_bytes(spec, planned_frames(spec)),
        *(snapshot_bytes(spec, stage) for stage in stages),
    )


def planned_frames(spec: RunSpec) -> int:
    """Frames that a replica of a middle stage reads and sends in a step, while its stage is complete."""
    return _FRAMES * spec.routed + 2 * spec.routed_heldout if spec.layout.stages > 1 else 0


def max_plan_bytes(spec: RunSpec) -> int:
    """Upper bound (bytes) of the plan of one step: a member and a number for each op, and some text."""
    return (1 << 12) + _PLANNED * spec.planned(0) * spec.layout.stages


def max_bytes(spec: RunSpec, key: RunObject, stage: int) -> int:
    """Upper bound (bytes) of an object that a replica of `stage` writes.

    For a frame, `iota.wire.frame.frame_size` gives the exact size once sender and receiver are known.
    """
    match key:
        case FrameKey():
            return frames_bytes(spec, 1)
        case DeltaKey():
            return delta_bytes(spec.outer.codec, spec.outer.part_elements) + _PART_SLACK
        case MergedKey():
            elements = spec.outer.part_elements
            return merged_bytes(spec.outer.codec, elements, elements) + _PART_SLACK
        case BaseKey():
            return 2 * _FP32 * spec.outer.part_elements + _PART_SLACK
        case EvidenceKey():
            return _evidence_bytes(spec, key.item, stage)
        case _:
            assert_never(key)


def _evidence_bytes(spec: RunSpec, item: EvidenceItem, stage: int) -> int:
    match item:
        case EvidenceItem.SNAPSHOT:
            return snapshot_bytes(spec, stage)
        case EvidenceItem.FRAMES:
            return frames_bytes(spec, _ATTEMPTS * _FRAMES * spec.planned(0))
        case EvidenceItem.FEEDBACK:
            return stage_feedback_bytes(spec, stage)
