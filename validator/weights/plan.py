"""Plan of one tempo's weights: the row to write to the chain, its state, and how scores become a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from iota.chain import Subnet, TxMode
from iota.chain.weight_rules import normalise
from iota.spec import json_digest

ROUNDING: Final = 1
"""How far two u16 of one weight may lie apart: chains round as they like."""


class PlanState(StrEnum):
    """Where a plan stands. Each comes from one above it."""

    PLANNED = "planned"
    """Written down; nobody knows yet whether the chain has it."""
    ACCEPTED = "accepted"
    """The chain answered that it has it, in a block that is not final yet."""
    UNSENT = "unsent"
    """It never left this machine."""
    REFUSED = "refused"
    """The chain said no."""
    LOST = "lost"
    """It was sent, or may have been, and can land no more."""
    LANDED = "landed"
    """A final block holds it; whether it is in force is not known yet."""
    IN_FORCE = "in force"
    """Its row was read back."""
    SUPERSEDED = "superseded"
    """The row of a later plan was in force before its own was seen."""
    NOT_IN_FORCE = "not in force"
    """Another row than its own, or none, is in force, though the chain took it."""


OPEN: Final = frozenset({PlanState.PLANNED, PlanState.ACCEPTED})
"""The chain must be looked at before anything else is sent."""
WRITTEN: Final = frozenset(
    {PlanState.ACCEPTED, PlanState.LANDED, PlanState.IN_FORCE, PlanState.SUPERSEDED, PlanState.NOT_IN_FORCE}
)
"""The chain has it, and counts it against the rate limit."""


class Point(StrEnum):
    """Moments in a plan's life at which a process may be killed: tests do."""

    BEFORE_PLAN = "before the plan is written"
    PLANNED = "the plan is written"
    ANSWERED = "the chain answered, and nothing is recorded"
    RECORDED = "the answer is recorded"
    BEFORE_READ_BACK = "before the row is read back"
    READ_BACK = "the row is read back, and nothing is recorded"


@dataclass(frozen=True, slots=True)
class Target:
    """One uid's weight, and whose uid it was at the planning."""

    hotkey: str
    weight: int
    """u16, the greatest 65535."""


@dataclass(frozen=True, slots=True)
class Allotment:
    """Weights by uid, as the metagraph of one block resolves them."""

    targets: Mapping[int, Target]
    gone: tuple[str, ...]
    """Hotkeys with a score and without a uid: their weight is lost to them."""


@dataclass(frozen=True, slots=True)
class WeightPlan:
    """One row that this validator means to write, as its database keeps it."""

    genesis: str
    """Of the chain it is for."""
    tempo: int
    """`EpochStatus.index` at the planning."""
    head: int
    """The newest block at the planning: it can land in none up to this one."""
    since: int
    """Block of the last weights before it: a `last_update` above this one is its own."""
    scores: Mapping[str, float]
    """Weight by hotkey, as scored."""
    targets: Mapping[int, Target]
    version_key: int
    planned_s: float
    """Unix seconds."""
    number: int = 0
    """Its row in the database, from 1."""
    state: PlanState = PlanState.PLANNED
    block: int | None = None
    """The block that holds it."""
    mode: TxMode | None = None
    """None where no answer says whether it was a commit."""
    reveal_round: int | None = None
    detail: str = ""
    """Why it stands as it does. Informational only."""

    @property
    def row(self) -> dict[int, int]:
        """u16 by uid, as it is sent and as it reads back."""
        return {uid: target.weight for uid, target in self.targets.items()}

    @property
    def digest(self) -> str:
        """Of what is sent: weights, their owners, the version key, the tempo and the chain."""
        targets = [[uid, t.hotkey, t.weight] for uid, t in sorted(self.targets.items())]
        # A version key is a u64: as text, since canonical JSON has no integer so large.
        return json_digest([self.genesis, self.tempo, str(self.version_key), targets])


def allot(subnet: Subnet, scores: Mapping[str, float], burn: float) -> Allotment | None:
    """Weights by uid: the scores' share to those who are there, `burn` to the owner's uid as it is now.

    None where nobody is to get anything. The scores of those who left go to those who stayed, so that
    the owner gets `burn` and no more.
    """
    uids = {neuron.hotkey: neuron.uid for neuron in subnet.neurons}
    here = {uids[hotkey]: weight for hotkey, weight in scores.items() if hotkey in uids and weight > 0}
    total = sum(here.values())
    by_uid = {uid: weight / total * (1 - burn) for uid, weight in here.items()}
    if burn > 0 and subnet.owner_uid is not None:
        by_uid[subnet.owner_uid] = by_uid.get(subnet.owner_uid, 0.0) + burn
    if not any(by_uid.values()):
        return None
    hotkeys = {uid: hotkey for hotkey, uid in uids.items()}
    targets = {uid: Target(hotkeys[uid], weight) for uid, weight in normalise(by_uid).items()}
    gone = tuple(sorted(hotkey for hotkey, weight in scores.items() if weight > 0 and hotkey not in uids))
    return Allotment(targets, gone)


def same_row(row: Mapping[int, int], planned: Mapping[int, int]) -> bool:
    """Whether a row on the chain is the planned one, but for rounding."""
    return all(abs(row.get(uid, 0) - planned.get(uid, 0)) <= ROUNDING for uid in row.keys() | planned.keys())
