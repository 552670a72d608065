"""Planning: which replica of each stage runs which microbatch of a step."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from iota.protocol.events import Plan
from iota.protocol.merkle import merkle_paths, merkle_root
from iota.protocol.plans import PlanProof, WholePlan
from orchestrator.coordinator import bridging
from orchestrator.coordinator.epoch_state import MicrobatchState, Place, PlannedStep
from orchestrator.coordinator.given_ops import GivenOps
from orchestrator.coordinator.lives import give
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.microbatches import start_clocks
from orchestrator.coordinator.state import RunState

GRAIN = 8
"""Speeds are rounded to 1/8 of the fastest, so that noise in them does not change the routes."""


def plan_ahead(run: RunState) -> None:
    """Plan steps of the current epoch up to the look-ahead, while every stage has an active replica.

    Not while the operator has paused the run: steps that are planned go on to their end.
    """
    if not bridging.may_plan(run):
        return
    epoch, schedule = run.current, run.spec.schedule
    while len(epoch.steps) < min(schedule.steps, epoch.closed_steps + run.limits.lookahead):
        replicas = []
        for stage in range(run.stages):
            able = run.holding(stage) > 0
            active = run.active(stage, len(epoch.steps)) if able else []
            if not active:
                return
            replicas.append(active)
        _plan_step(run, replicas)


def _plan_step(run: RunState, replicas: list[list[Member]]) -> None:
    spec, epoch = run.spec, run.current
    step = len(epoch.steps)
    count = spec.planned(step)
    turns = assign_turns([[m.op_seconds for m in stage] for stage in replicas], count)
    chosen = [[replicas[s][turns[s][i]] for s in range(run.stages)] for i in range(count)]
    members = tuple(sorted({m.hotkey for route in chosen for m in route}))
    index = {hotkey: n for n, hotkey in enumerate(members)}
    plan = WholePlan(
        epoch=epoch.epoch,
        step=step,
        learning_rate=bridging.learning_rate(run, step),
        members=members,
        routes=tuple(tuple(index[m.hotkey] for m in route) for route in chosen),
    )
    run.outbox.plans.append(plan)
    microbatches = [
        MicrobatchState(i, [Place(m.hotkey) for m in route], uncounted=run.stages, heldout=spec.is_heldout(i))
        for i, route in enumerate(chosen)
    ]
    given = GivenOps.of(count, run.stages)
    for i, route in enumerate(chosen):
        for stage, member in enumerate(route):
            member.work[step, i] = None
            give(run, given, (i, stage), 0, member)
    root = _send_shares(run, plan)
    heldout = count - spec.schedule.microbatches
    epoch.steps.append(
        PlannedStep(step, plan.learning_rate, root, microbatches, count, given, heldout_open=heldout)
    )
    if step <= run.newest_runnable:
        start_clocks(run, step)


def _send_shares(run: RunState, plan: WholePlan) -> str:
    """Send each replica its share of a plan, with the path to the root, which is returned.

    The shares are made twice, one after the other: all at once they would be most of what lives here.
    """
    digests = [share.digest() for share in plan.shares()]
    root = merkle_root(digests)
    for at, (share, path) in enumerate(zip(plan.shares(), merkle_paths(digests), strict=True)):
        proof = PlanProof(root=root, at=at, count=len(digests), path=path)
        run.send(share.hotkey, Plan(share=share, proof=proof))
    return root


def assign_turns(op_seconds: Sequence[Sequence[float]], count: int) -> list[list[int]]:
    """Assign `count` microbatches to the replicas of each stage, in proportion to their speed.

    `op_seconds[stage][replica]` is 0 where nothing was measured. Returns the replica's index as
    `turns[stage][microbatch]`.

    Where all stages have the same number of replicas, the r-th replicas of all stages form chain r. A chain
    runs at the speed of its slowest replica, so every stage takes the same turns and routes stay in a chain.
    """
    rates = [[1 / s if s > 0 else 0.0 for s in stage] for stage in op_seconds]
    if len({len(stage) for stage in rates}) == 1:
        chains = [min(stage[r] for stage in rates) for r in range(len(rates[0]))]
        rates = [chains] * len(rates)
    known: dict[tuple[int, ...], list[int]] = {}
    weights = [tuple(_coarse(stage)) for stage in rates]
    return [known.get(each) or known.setdefault(each, interleave(each, count)) for each in weights]


def _coarse(rates: Sequence[float]) -> list[int]:
    """Integer rates in units of 1/GRAIN of the fastest; unmeasured ones count as the fastest."""
    fastest = max(rates)
    if fastest <= 0:
        return [GRAIN] * len(rates)
    return [max(1, round(GRAIN * (r or fastest) / fastest)) for r in rates]


def interleave(weights: Sequence[int], count: int) -> list[int]:
    """Smooth weighted round robin (as in nginx): `count` turns, each index in proportion to its weight.

    Each turn everyone gets credit of its weight; the one with most credit, of equals the first, takes the
    turn and pays the sum of all weights. Those of one weight take their turns in a circle, so only the next
    of each weight is looked at.
    """
    circles: dict[int, deque[int]] = {}
    for index, weight in enumerate(weights):
        circles.setdefault(weight, deque()).append(index)
    total, paid, turns = sum(weights), [0] * len(weights), []
    for turn in range(1, count + 1):
        nexts = ((weight * turn - paid[circle[0]], -circle[0], weight) for weight, circle in circles.items())
        _, at, weight = max(nexts)
        turns.append(-at)
        paid[-at] += total
        circles[weight].rotate(-1)
    return turns
