"""How long a miner may take to store a snapshot, and the audit deadline that leaves time for it."""

from __future__ import annotations

import math
from typing import Final

from iota.model.layout import count, run_shapes
from iota.spec import Pipeline, RunSpec, StateRule

LINE_SHARE: Final = 0.25
"""Share of its line that a miner is expected to have for snapshots, beside frames and pseudo-gradients."""
_STORING: Final = 0.75
"""Largest share of the audit deadline that storing what one draw demands may take: the last is then read, and
replayed, before validators give up (`FILING_SHARE`)."""
_STATE: Final = 12
"""Bytes of a parameter in a snapshot: its weight and two moments in fp32."""


def storing_s(size: int, line: float) -> float:
    """Seconds for `size` bytes by a line of `line` bytes a second."""
    return size / (line * LINE_SHARE)


def drawn_snapshots(spec: RunSpec) -> int:
    """Snapshots of a miner that the draw of one validator can demand, without those of its words.

    One for each op, those at the start and at the end of a step (one and the same where the pipeline is
    `sync`), and one for moments that are carried over.
    """
    of_step = 1 if spec.schedule.pipeline is Pipeline.SYNC else 2
    return spec.audit.ops + of_step + (spec.optimizer.state is StateRule.CARRY)


def least_deadline_s(spec: RunSpec) -> int:
    """The shortest audit deadline (seconds) that leaves time for what a draw demands, by `audit.line`."""
    largest = max(count(run_shapes(spec, stage)) for stage in range(spec.layout.stages))
    return math.ceil(storing_s(drawn_snapshots(spec) * _STATE * largest, spec.audit.line) / _STORING)


def deadline_contradiction(spec: RunSpec) -> str | None:
    """A sentence where the audit deadline leaves no time for snapshots; else None."""
    if spec.audit.deadline_s >= (least := least_deadline_s(spec)):
        return None
    return (
        f"audit.deadline_s {spec.audit.deadline_s:g} leaves no time to store a stage's snapshots by a quarter"
        f" of audit.line {spec.audit.line:g}: give at least {least}, a faster line, or more stages"
    )
