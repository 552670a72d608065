"""How long a miner may take to store evidence, and the audit deadline that leaves time for it."""

from __future__ import annotations

import math
from typing import Final

from iota.codec.shapes import payload_size
from iota.model.layout import count, run_shapes
from iota.model.moment_layout import moment_bytes
from iota.spec import Pipeline, RunSpec

LINE_SHARE: Final = 0.25
"""Share of its line that a miner is expected to have for snapshots, beside frames and pseudo-gradients."""
_STORING: Final = 0.75
"""Largest share of the audit deadline that storing what one draw demands may take: the last is then read, and
replayed, before validators give up (`FILING_SHARE`)."""
_FRAMES: Final = 4
"""Frames of a microbatch: from and to both sides."""
_HEADER: Final = 4096
"""Bytes of a frame besides its payload, at the most."""


def storing_s(size: int, line: float) -> float:
    """Seconds for `size` bytes by a line of `line` bytes a second."""
    return size / (line * LINE_SHARE)


def drawn_snapshots(spec: RunSpec) -> int:
    """Deliveries of a miner that the draw of one validator can demand, without those of its words.

    The start and the end of each segment, and the last version; no more than there are.
    """
    return min(spec.commitments, 2 * _segments(spec) + 1)


def _segments(spec: RunSpec) -> int:
    """Segments of a miner that one validator audits in an epoch: of the public draw, and one of its own."""
    return 1 + spec.epoch_windows


def _drawn_frames(spec: RunSpec) -> int:
    """Bytes of the frames of all steps that the draw of one validator looks at: the store may lose each."""
    if spec.layout.stages == 1:
        return 0
    steps = min(spec.schedule.steps, _segments(spec) * spec.audit.commit_every + spec.audit.ops)
    return steps * _FRAMES * spec.routed * (payload_size(spec) + _HEADER)


def _state_bytes(spec: RunSpec, stage: int) -> int:
    shapes = run_shapes(spec, stage)
    versions = 2 if spec.schedule.pipeline is Pipeline.DELAYED else 1
    return versions * spec.precision.weight_bytes * count(shapes) + moment_bytes(spec.optimizer, shapes)


def least_deadline_s(spec: RunSpec) -> int:
    """The shortest audit deadline (seconds) that leaves time for what a draw demands, by `audit.line`."""
    states = max(_drawn_states(spec, stage) for stage in range(spec.layout.stages))
    return math.ceil(storing_s(states + _drawn_frames(spec), spec.audit.line) / _STORING)


def _drawn_states(spec: RunSpec, stage: int) -> int:
    """Bytes of the snapshots that the draw of one validator can demand, and of the error feedback."""
    feedback = spec.outer.codec.feedback_bytes * count(run_shapes(spec, stage))
    return drawn_snapshots(spec) * _state_bytes(spec, stage) + feedback


def deadline_contradiction(spec: RunSpec) -> str | None:
    """A sentence where the audit deadline leaves no time for evidence; else None."""
    if spec.audit.deadline_s >= (least := least_deadline_s(spec)):
        return None
    return (
        f"audit.deadline_s {spec.audit.deadline_s:g} leaves no time to store a stage's evidence by a quarter"
        f" of audit.line {spec.audit.line:g}: give at least {least}, a faster line, or more stages"
    )
