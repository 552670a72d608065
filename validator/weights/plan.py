"""The plan of one tempo's weights: the row to write, its state, and how scores become a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from iota.chain import Subnet, TxMode
from iota.chain.weight_rules import normalise
from iota.spec import json_digest

ROUNDING: Final = 1
"""Largest difference between a planned and a stored u16 weight: chains round differently."""


class PlanState(StrEnum):
    """The state of a plan. Each follows from one listed above it."""

    PLANNED = "planned"
    """Recorded; whether the chain has it is unknown."""
    ACCEPTED = "accepted"
    """The chain took it into a block that is not final yet."""
    UNSENT = "unsent"
    """It never left this machine."""
    REFUSED = "refused"
    """The chain refused it."""
    LOST = "lost"
    """Sent, or maybe sent, and too old to land."""
    LANDED = "landed"
    """In a final block; whether it is in force is unknown."""
    IN_FORCE = "in force"
    """Its row was read back."""
    SUPERSEDED = "superseded"
    """The row of a later plan was in force before its own was seen."""
    NOT_IN_FORCE = "not in force"
    """The chain took it, but another row, or none, is in force."""


OPEN: Final = frozenset({PlanState.PLANNED, PlanState.ACCEPTED})
"""States in which a write may be under way."""
WRITTEN: Final = frozenset(
    {PlanState.ACCEPTED, PlanState.LANDED, PlanState.IN_FORCE, PlanState.SUPERSEDED, PlanState.NOT_IN_FORCE}
)
"""States in which the chain has taken the row, and counts it against the rate limit."""


class Point(StrEnum):
    """Moments between the steps of setting weights. Tests kill the process at each."""

    BEFORE_PLAN = "before the plan is written"
    PLANNED = "the plan is written"
    ANSWERED = "the chain answered, and nothing is recorded"
    RECORDED = "the answer is recorded"
    BEFORE_READ_BACK = "before the row is read back"
    READ_BACK = "the row is read back, and nothing is recorded"


@dataclass(frozen=True, slots=True)
class Target:
    """One uid's weight, and the hotkey that held the uid at the planning."""

    hotkey: str
    weight: int
    """u16; the largest weight of a row is 65535."""


@dataclass(frozen=True, slots=True)
class Allotment:
    """Weights by uid, for the members of the subnet at one block."""

    targets: Mapping[int, Target]
    gone: tuple[str, ...]
    """Hotkeys with a score that have left the subnet; the others share their weight."""


@dataclass(frozen=True, slots=True)
class WeightPlan:
    """One row of weights for the chain, as the database keeps it."""

    genesis: str
    """Genesis hash of the chain that it is for."""
    tempo: int
    """`EpochStatus.index` at the planning."""
    head: int
    """The newest block at the planning. It can only land in a later one."""
    since: int
    """Block of the last weights before it. A `last_update` above this is the plan's own."""
    scores: Mapping[str, float]
    """Weight by hotkey, from the scores."""
    targets: Mapping[int, Target]
    """By uid."""
    version_key: int
    planned_s: float
    """Unix seconds."""
    number: int = 0
    """Its row in the database, from 1."""
    state: PlanState = PlanState.PLANNED
    block: int | None = None
    """The block that holds it."""
    mode: TxMode | None = None
    """None if no answer said whether it was a commit."""
    reveal_round: int | None = None
    detail: str = ""
    """The reason for its state. Informational only."""

    @property
    def row(self) -> dict[int, int]:
        """u16 by uid, as it is sent and as it reads back."""
        return {uid: target.weight for uid, target in self.targets.items()}

    @property
    def is_hidden(self) -> bool:
        """Whether it is a commit in a final block that is not known to be revealed."""
        return self.state is PlanState.LANDED and self.mode is TxMode.COMMIT

    @property
    def digest(self) -> str:
        """Digest of the row with its hotkeys, version key, tempo and chain. It detects a damaged record."""
        targets = [[uid, t.hotkey, t.weight] for uid, t in sorted(self.targets.items())]
        # The version key is a u64, and canonical JSON has no integers that large: as text.
        return json_digest([self.genesis, self.tempo, str(self.version_key), targets])


def allot(subnet: Subnet, scores: Mapping[str, float], burn: float) -> Allotment | None:
    """Weights by uid: `burn` to the subnet owner's uid, the rest to the scored hotkeys in the subnet.

    The weight of hotkeys that left is shared by those that stayed, so that the owner gets exactly `burn`.
    None if no uid gets any weight.
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
    """Whether a row on the chain is the planned one, up to `ROUNDING`."""
    return all(abs(row.get(uid, 0) - planned.get(uid, 0)) <= ROUNDING for uid in row.keys() | planned.keys())
