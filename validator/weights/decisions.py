"""Decisions about weights: when they are due, whether a plan landed and is in force, and why not. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from iota.chain import EpochStatus, Neuron, Subnet, TxMode
from validator.weights.plan import PlanState, WeightPlan, same_row

LATE_TEMPOS: Final = 3
"""How many tempos after it was due a reveal may come before the commit is given up."""
_ACTIVE: Final = 3 / 4
"""Share of the activity cut-off after which weights are set again in the same tempo."""
_LATE: Final = 10
"""Blocks by which a tempo's end may seem overdue, before it is taken for one that the chain left out."""
_GUARD: Final = 3
"""Nothing is sent in the last blocks of a tempo: it could land in the next one, which is then served."""


class Step(StrEnum):
    SET = "set"
    WAIT = "wait"
    CANNOT = "cannot"


@dataclass(frozen=True, slots=True)
class Due:
    """What to do about weights now."""

    step: Step
    why: str
    blocks: int = 0
    """For WAIT: look again after so many, at least 1."""


@dataclass(frozen=True, slots=True)
class Own:
    """What this validator's own records say, for one chain."""

    tempo: int | None = None
    """Of the last plan that the chain has."""
    block: int | None = None
    """The block that holds it."""
    unresolved: bool = False
    """There is a plan whose fate is not known."""


def due(status: EpochStatus, subnet: Subnet, neuron: Neuron | None, own: Own) -> Due:
    """Whether to set weights now: once a tempo, within the rate limit, before the activity cut-off.

    `neuron` is this validator's own in `subnet`, which is read at a final block. `status` names the newest
    block and may be as old otherwise; the own records make up for what is not shown yet.
    """
    if neuron is None:
        return Due(
            Step.CANNOT,
            f"this hotkey is not registered on subnet {subnet.netuid}: run `iota-validator register`",
        )
    if not neuron.validator_permit:
        return Due(
            Step.CANNOT, f"this hotkey has no validator permit on subnet {subnet.netuid}: it needs more stake"
        )
    if own.unresolved:
        return Due(Step.WAIT, "whether the last weights landed is not known yet", 1)
    last = last_set(neuron, own)
    if last is not None and not _again(status, subnet, last, own):
        wait = min(status.next_epoch_block, _stale_at(subnet, last)) - status.block
        return Due(Step.WAIT, f"the weights of tempo {status.index} are set", max(1, wait))
    # The chain counts a registration like weights.
    limit = max(neuron.last_update, neuron.registered_at, last or 0) + subnet.weights_rate_limit
    if status.block + 1 < limit:
        return Due(Step.WAIT, "the rate limit", limit - status.block - 1)
    left = status.next_epoch_block - status.block
    # Below 0: the final block does not show the next tempo yet. A chain may also leave an epoch out.
    if -_LATE <= left <= min(_GUARD, status.tempo // 10):
        return Due(Step.WAIT, f"tempo {status.index} ends", max(1, left + 1))
    return Due(Step.SET, f"tempo {status.index} has no weights yet")


def last_set(neuron: Neuron, own: Own) -> int | None:
    """Block of this validator's last weights since it was registered; None before any."""
    blocks = [neuron.last_update] if neuron.last_update > neuron.registered_at else []
    if own.block is not None and own.block > neuron.registered_at:
        blocks.append(own.block)
    return max(blocks, default=None)


def _again(status: EpochStatus, subnet: Subnet, last: int, own: Own) -> bool:
    served = last >= status.last_epoch_block or own.tempo == status.index
    return not served or status.block >= _stale_at(subnet, last)


def _stale_at(subnet: Subnet, last: int) -> int:
    return last + max(1, int(subnet.activity_cutoff * _ACTIVE))


def fate(
    plan: WeightPlan, subnet: Subnet, neuron: Neuron | None, lifetime: int
) -> tuple[PlanState, int | None]:
    """What became of an open plan, by a final block: its state now, and the block that holds it.

    `lifetime` is how many blocks after the planning it can still land. Only one process writes with
    this hotkey, so that a newer `last_update` than before is its own.
    """
    if neuron is not None and neuron.last_update > max(plan.since, neuron.registered_at):
        answered = plan.block is not None and plan.block <= neuron.last_update
        return PlanState.LANDED, plan.block if answered else neuron.last_update
    if subnet.block.number > plan.head + lifetime:
        return PlanState.LOST, None
    return plan.state, plan.block


def effect(
    plan: WeightPlan,
    row: Mapping[int, int] | None,
    later: list[WeightPlan],
    status: EpochStatus,
    subnet: Subnet,
    settled: bool,
) -> PlanState:
    """Whether a landed plan's row is in force, given this validator's `row`.

    `later` are the plans that the chain took after it; `settled` says that a plain row must show by now.
    """
    if row is not None and same_row(row, plan.row):
        return PlanState.IN_FORCE
    if row is not None and any(same_row(row, other.row) for other in later):
        return PlanState.SUPERSEDED
    over = settled if plan.mode is TxMode.PLAIN else status.index > plan.tempo + reveal_patience(subnet)
    return PlanState.NOT_IN_FORCE if over else PlanState.LANDED


def reveal_patience(subnet: Subnet) -> int:
    """How many tempos after its own a commit may take to come into force."""
    return subnet.reveal_tempos + LATE_TEMPOS


def strangers(plan: WeightPlan, subnet: Subnet) -> list[int]:
    """Uids whose weight goes to somebody else, who took them between the planning and the landing.

    The chain passes over weights that are older than the registration of who they are for.
    """
    return [
        neuron.uid
        for neuron in subnet.neurons
        if neuron.uid in plan.targets
        and neuron.hotkey != plan.targets[neuron.uid].hotkey
        and neuron.registered_at <= (plan.block or 0)
    ]


def likely_cause(plan: WeightPlan, subnet: Subnet, neuron: Neuron | None) -> str:
    """Why the chain took weights that are not in force, as far as it can be seen."""
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
