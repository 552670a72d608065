"""What the audits of a run cost, and what they find: they follow from its spec. Pure.

Two budgets bound the rates: compute (`COMPUTE_BUDGET` of the swarm's) and the bytes of a miner's line, of
which `LINE_SHARE` is there for evidence. Per miner, with S steps between two public turns
(docs/validator.md), H steps an epoch, segments of L steps, V validators and m microbatches a step:

    segments a step = 1 / S + 1 / (H * extra_every)
    compute         = L * (segments a step) + V * ops * (share of an op) / (H * m)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from iota.codec.shapes import payload_size
from iota.model.layout import count, run_shapes, stage_flops
from iota.model.snapshot_time import storing_s
from iota.objects import snapshot_bytes
from iota.spec import RunSpec

COMPUTE_BUDGET: Final = 0.03
"""Share of the swarm's compute that audits may take."""
SNAPSHOTS: Final = 3
"""That a miner stores for one drawn segment, at the most: at its start, its end, and the epoch's last."""
_OP: Final = 2 / 3
"""Compute of an op audit, in microbatches: a BACKWARD is replayed with its FORWARD, which is a third."""


@dataclass(frozen=True)
class AuditCosts:
    """Costs at the largest stage, and what they buy. Compute is in shares of what the miners compute."""

    validators: int
    turn_steps: float
    """Steps between two public turns of a miner: a cheat in every segment is found within them."""
    segments: float
    """Segments of one miner that are audited in that time, by all validators together."""
    segment_compute: float
    op_compute: float
    snapshot: int
    """Bytes of one kept state."""
    kept: int
    """Bytes of the kept states of two epochs on a miner's disk."""
    stored: float
    """Bytes that a miner stores for audits in the time of a turn, at the most."""
    fetched: float
    """Bytes that validators fetch of one miner in the time of a turn: states, frames, and once a base."""
    storing_s: float
    """Seconds to store what one segment needs, by a quarter of `audit.line`."""
    turn_s: float
    """Seconds of a turn's steps at the planned speed."""
    compute_window: int
    """The smallest `audit.window_steps` whose audits stay within the compute budget; 0: none does."""
    line_window: int
    """The smallest `audit.window_steps` whose evidence a miner's line can carry."""

    @property
    def compute(self) -> float:
        """Share of the swarm's compute."""
        return self.segment_compute + self.op_compute


def turn_steps(spec: RunSpec) -> float:
    """Steps between two public turns of a miner (`validator.core.segments`)."""
    return spec.schedule.steps * spec.window_epochs / spec.epoch_windows


def audit_costs(spec: RunSpec, step_s: float, validators: int) -> AuditCosts:
    """The costs of a run whose steps take `step_s` seconds, with so many validators."""
    sizes = [count(run_shapes(spec, stage)) for stage in range(spec.layout.stages)]
    stage = max(range(len(sizes)), key=sizes.__getitem__)
    schedule, audit = spec.schedule, spec.audit
    length = min(audit.commit_every, schedule.steps)
    turn = turn_steps(spec)
    ops = validators * audit.ops * _op_share(spec) / (schedule.steps * spec.routed)
    segments = 1 + turn / (schedule.steps * audit.extra_every)
    snapshot = snapshot_bytes(spec, stage)
    frames = 4 * spec.routed * length * payload_size(spec)
    base = 4 * sizes[stage]
    op_bytes = validators * audit.ops * turn / schedule.steps * (snapshot + 3 * payload_size(spec))
    needed = min(SNAPSHOTS, spec.commitments) * snapshot
    stored = segments * needed + op_bytes
    left = COMPUTE_BUDGET - ops - length / (schedule.steps * audit.extra_every)
    carried = storing_s(needed, audit.line)
    return AuditCosts(
        validators=validators,
        turn_steps=turn,
        segments=segments,
        segment_compute=segments * length / turn,
        op_compute=ops,
        snapshot=snapshot,
        kept=2 * spec.commitments * snapshot,
        stored=stored,
        fetched=stored + segments * (frames + base),
        storing_s=carried,
        turn_s=turn * step_s,
        compute_window=math.ceil(length / left) if left > 0 else 0,
        line_window=math.ceil(carried / step_s),
    )


def windows_until(share: float, chance: float) -> int:
    """Windows after which a cheat in `share` of a miner's segments is found with `chance`."""
    return 1 if share >= 1 else math.ceil(math.log(1 - chance) / math.log(1 - share))


def step_seconds(spec: RunSpec, seconds_per_token: float) -> float:
    """Seconds of one step of the slowest stage, from its seconds a token."""
    return spec.routed * spec.data.tokens * seconds_per_token


def _op_share(spec: RunSpec) -> float:
    """Compute of an op audit in microbatches of the average stage: the last one's LOSS is a whole one."""
    cuts, length = spec.layout.cuts, spec.data.sequence_length
    flops = [stage_flops(spec.model, cuts, s, length, spec.boundary) for s in range(len(cuts))]
    return (sum(flops[:-1]) * _OP + flops[-1]) / sum(flops)
