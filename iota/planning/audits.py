"""What the audits of a run cost, and what they find: they follow from its spec. Pure.

Two budgets bound the rates: compute (`COMPUTE_BUDGET` of the swarm's, by `iota.model.audit_rates`) and the
bytes of a miner's line, of which `LINE_SHARE` is there for evidence. Audits of single ops use the base, which
a validator fetches once for all replicas of a stage, and frames, which lie in the store.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Self

from iota.codec.shapes import payload_size
from iota.model import audit_rates
from iota.model.audit_rates import COMPUTE_BUDGET
from iota.model.layout import count, run_shapes
from iota.model.snapshot_time import storing_s
from iota.objects import (
    delta_part_bytes,
    frames_bytes,
    planned_frames,
    snapshot_bytes,
    stage_feedback_bytes,
)
from iota.planning.needs import stage_needs
from iota.spec import RunSpec

SNAPSHOTS: Final = 3
"""That a miner stores for one drawn segment, at the most: at its start, its end, and the epoch's last. With
error feedback it stores that too."""
DAY_S: Final = 86_400.0
_OP_FRAMES: Final = 3
"""Frames of an op audit, at the most: two that it read, and one that it sent."""


@dataclass(frozen=True)
class Rates:
    """Rates of audits, the share of the swarm's compute that they take, and how soon they find."""

    window_steps: int
    extra_every: int
    window: int
    """Epochs of work that score: at least those of two windows of audits."""
    turn_steps: float
    """Steps in which each miner has a segment audited for certain."""
    segment_compute: float
    op_compute: float

    @classmethod
    def of(cls, spec: RunSpec) -> Self:
        """Those of a run."""
        return cls(
            window_steps=spec.audit.window_steps,
            extra_every=spec.audit.extra_every,
            window=max(spec.audit.window, audit_rates.least_score_window(spec)),
            turn_steps=audit_rates.turn_steps(spec),
            segment_compute=audit_rates.public_compute(spec) + audit_rates.own_compute(spec),
            op_compute=audit_rates.op_compute(spec),
        )

    @property
    def compute(self) -> float:
        """Share of the swarm's compute."""
        return self.segment_compute + self.op_compute


@dataclass(frozen=True)
class AuditCosts:
    """Costs at the largest stage, and what they buy. They do not grow with the number of validators."""

    rates: Rates
    within: Rates | None
    """The smallest rates that keep the compute budget with the run's `commit_every`; None: none do."""
    segments: float
    """Segments of one miner that are audited in a turn, by all validators together."""
    snapshot: int
    """Bytes of one kept state."""
    kept: int
    """Bytes of the kept states of two epochs on a miner's disk, as `Needs.snapshots`."""
    written_day: float
    """Bytes that a miner writes to its disk a day for kept states."""
    stored: float
    """Bytes that a miner stores for audits in the time of a turn, at the most."""
    fetched: float
    """Bytes that validators fetch of one miner in the time of a turn: states, frames, once a base, and with
    overlap what own starts are made of."""
    storing_s: float
    """Seconds to store what one segment needs, by a quarter of `audit.line`."""
    turn_s: float
    """Seconds of a turn's steps at the planned speed."""
    line_window: int
    """The smallest `audit.window_steps` whose evidence a miner's line can carry."""


def audit_costs(spec: RunSpec, step_s: float) -> AuditCosts:
    """The costs of a run whose steps take `step_s` seconds."""
    sizes = [count(run_shapes(spec, stage)) for stage in range(spec.layout.stages)]
    stage = max(range(len(sizes)), key=sizes.__getitem__)
    steps, rates = spec.schedule.steps, Rates.of(spec)
    segments = audit_rates.window_draws(spec) + rates.turn_steps / (steps * spec.audit.extra_every)
    snapshot = snapshot_bytes(spec, stage)
    frames = frames_bytes(spec, planned_frames(spec)) * audit_rates.segment_steps(spec)
    audited_ops = spec.audit.ops * rates.turn_steps / steps
    ops = audited_ops * _OP_FRAMES * payload_size(spec)
    own = (segments + audited_ops) * sum(delta_part_bytes(spec, stage)) if spec.overlaps else 0
    needed = min(SNAPSHOTS, spec.commitments) * snapshot + stage_feedback_bytes(spec, stage)
    carried, stored = storing_s(needed, spec.audit.line), segments * needed
    return AuditCosts(
        rates=rates,
        within=_within_budget(spec),
        segments=segments,
        snapshot=snapshot,
        kept=stage_needs(spec, stage).snapshots,
        written_day=spec.commitments * snapshot * DAY_S / (steps * step_s),
        stored=stored,
        fetched=stored + segments * (frames + 4 * sizes[stage]) + ops + own,
        storing_s=carried,
        turn_s=rates.turn_steps * step_s,
        line_window=math.ceil(carried / step_s),
    )


def _within_budget(spec: RunSpec) -> Rates | None:
    audit = audit_rates.rates_within(spec, COMPUTE_BUDGET)
    return None if audit is None else Rates.of(spec.model_copy(update={"audit": audit}))


def segments_until(share: float, chance: float) -> float:
    """Audited segments after which a cheat in `share` of a miner's is found with `chance`; both below 1."""
    return math.log(1 - chance) / math.log(1 - share)


def step_seconds(spec: RunSpec, seconds_per_token: float) -> float:
    """Seconds of one step of the slowest stage, from its seconds a token."""
    return spec.routed * spec.data.tokens * seconds_per_token
