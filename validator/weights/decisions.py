"""Decisions about weights: when they are due, and whether a plan landed and is in force. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from iota.chain import EpochStatus, Neuron, Subnet, TxMode
from validator.weights.plan import PlanState, WeightPlan, same_row

LATE_TEMPOS: Final = 3
"""Tempos that a reveal may be overdue before the commit counts as failed."""
_ACTIVE: Final = 3 / 4
"""Share of the activity cut-off after which weights are set again within a tempo, to stay active."""
_LATE: Final = 10
"""Blocks that a tempo's end may be overdue before it counts as skipped by the chain."""
_GUARD: Final = 3
"""Last blocks of a tempo in which nothing is sent: it might land in the next tempo and use up its turn."""


class Step(StrEnum):
    """What to do about weights now."""

    SET = "set"
    WAIT = "wait"
    CANNOT = "cannot"
    """Waiting does not help: the hotkey lacks its registration or its permit."""


@dataclass(frozen=True, slots=True)
class Due:
    """A decision with its reason, for the log and the status."""

    step: Step
    why: str
    blocks: int = 0
    """WAIT only: blocks until the next look, at least 1."""


@dataclass(frozen=True, slots=True)
class LastWeights:
    """The last weights on one chain, as this validator's own database has them."""

    tempo: int | None = None
    """Tempo of the last plan that the chain took."""
    block: int | None = None
    """The block that holds it."""
    unresolved: bool = False
    """Whether a plan was written or sent whose fate is unknown."""


def due(status: EpochStatus, subnet: Subnet, neuron: Neuron | None, own: LastWeights) -> Due:
    """Whether to set weights now: once a tempo, within the rate limit, before the activity cut-off.

    `subnet`, and `neuron` in it, are read at a final block. `status.block` is the newest block; its other
    fields may be as old as the final one. `own` fills in what these do not show yet.
    """
    if neuron is None:
        why = f"this hotkey is not registered on subnet {subnet.netuid}: run `iota-validator register`"
        return Due(Step.CANNOT, why)
    if not neuron.validator_permit:
        why = f"this hotkey has no validator permit on subnet {subnet.netuid}: it needs more stake"
        return Due(Step.CANNOT, why)
    if own.unresolved:
        return Due(Step.WAIT, "whether the last weights landed is not known yet", 1)
    last = last_set(neuron, own)
    if last is not None and not _due_again(status, subnet, last, own):
        wait = min(status.next_epoch_block, _stale_at(subnet, last)) - status.block
        return Due(Step.WAIT, f"the weights of tempo {status.index} are set", max(1, wait))
    # The chain counts a registration like weights.
    limit = max(neuron.last_update, neuron.registered_at, last or 0) + subnet.weights_rate_limit
    if status.block + 1 < limit:
        return Due(Step.WAIT, "the rate limit", limit - status.block - 1)
    left = status.next_epoch_block - status.block
    # Below 0 if the final block does not show the next tempo yet. A chain may also skip an epoch.
    if -_LATE <= left <= min(_GUARD, status.tempo // 10):
        return Due(Step.WAIT, f"tempo {status.index} ends", max(1, left + 1))
    return Due(Step.SET, f"tempo {status.index} has no weights yet")


def last_set(neuron: Neuron, own: LastWeights) -> int | None:
    """Block of this validator's last weights since its registration; None if there are none."""
    blocks = [neuron.last_update] if neuron.last_update > neuron.registered_at else []
    if own.block is not None and own.block > neuron.registered_at:
        blocks.append(own.block)
    return max(blocks, default=None)


def _due_again(status: EpochStatus, subnet: Subnet, last: int, own: LastWeights) -> bool:
    served = last >= status.last_epoch_block or own.tempo == status.index
    return not served or status.block >= _stale_at(subnet, last)


def _stale_at(subnet: Subnet, last: int) -> int:
    return last + max(1, int(subnet.activity_cutoff * _ACTIVE))


def fate(
    plan: WeightPlan, subnet: Subnet, neuron: Neuron | None, lifetime: int
) -> tuple[PlanState, int | None]:
    """The state of an open plan as a final block shows it, and the block that holds it.

    `lifetime` is how many blocks after its planning it can still land. Only one process writes with this
    hotkey, so a `last_update` newer than before the plan is the plan's own.
    """
    if neuron is not None and neuron.last_update > max(plan.since, neuron.registered_at):
        answered = plan.block is not None and plan.block <= neuron.last_update
        return PlanState.LANDED, plan.block if answered else neuron.last_update
    if subnet.block.number > plan.head + lifetime:
        return PlanState.LOST, None
    return plan.state, plan.block


def landed_state(
    plan: WeightPlan,
    row: Mapping[int, int] | None,
    later: list[WeightPlan],
    status: EpochStatus,
    subnet: Subnet,
    settled: bool,
) -> PlanState:
    """The state of a landed plan, given this validator's `row` in force.

    `later` are the plans that the chain took after it. `settled`: a plain row must be in force by now.
    """
    if row is not None and same_row(row, plan.row):
        return PlanState.IN_FORCE
    if row is not None and any(same_row(row, other.row) for other in later):
        return PlanState.SUPERSEDED
    over = settled if plan.mode is TxMode.PLAIN else status.index > plan.tempo + reveal_patience(subnet)
    return PlanState.NOT_IN_FORCE if over else PlanState.LANDED


def reveal_patience(subnet: Subnet) -> int:
    """Tempos after its own within which a commit must come into force."""
    return subnet.reveal_tempos + LATE_TEMPOS


def reassigned_uids(plan: WeightPlan, subnet: Subnet) -> list[int]:
    """Uids of the row that another hotkey took over between the planning and the landing.

    Their weight goes to the new hotkey. After a takeover later than the landing it goes to none: the chain
    ignores weights older than the registration.
    """
    return [
        neuron.uid
        for neuron in subnet.neurons
        if neuron.uid in plan.targets
        and neuron.hotkey != plan.targets[neuron.uid].hotkey
        and neuron.registered_at <= (plan.block or 0)
    ]


def likely_cause(plan: WeightPlan, subnet: Subnet, neuron: Neuron | None) -> str:
    """The likely reasons why weights that the chain took are not in force."""
    if neuron is None:
        return "this hotkey is no longer registered"
    causes = []
    if not neuron.validator_permit:
        causes.append("this hotkey has lost its validator permit")
    if subnet.weights_version > plan.version_key:
        causes.append(f"the subnet's version key rose from {plan.version_key} to {subnet.weights_version}")
    holders = {n.uid: n.hotkey for n in subnet.neurons}
    moved = [str(uid) for uid, t in sorted(plan.targets.items()) if holders.get(uid) != t.hotkey]
    if moved:
        causes.append(f"uid {', '.join(moved)} changed hands")
    if not causes and plan.mode is TxMode.COMMIT:
        causes.append(f"the commit was not revealed within {reveal_patience(subnet)} tempos")
    other = "somebody else writes with this hotkey, or the chain cut a weight to its limit for one uid"
    return " and ".join(causes) or other
