"""Plans of one route for all microbatches, as a replica of one stage hears of them."""

from __future__ import annotations

from collections.abc import Sequence

from iota.protocol.events import Plan
from iota.protocol.merkle import merkle_paths, merkle_root
from iota.protocol.plans import PlanProof, WholePlan


def whole_plan(
    route: Sequence[str], microbatches: int, *, epoch: int = 0, step: int = 0, learning_rate: float = 0.1
) -> WholePlan:
    """All microbatches go through the hotkeys of `route`, by stage."""
    members = tuple(sorted(route))
    return WholePlan(
        epoch=epoch,
        step=step,
        learning_rate=learning_rate,
        members=members,
        routes=(tuple(members.index(hotkey) for hotkey in route),) * microbatches,
    )


def share_of(whole: WholePlan, hotkey: str) -> Plan:
    """The event with which the replica `hotkey` hears of a plan."""
    shares = list(whole.shares())
    digests = [share.digest() for share in shares]
    at = [share.hotkey for share in shares].index(hotkey)
    proof = PlanProof(root=merkle_root(digests), at=at, count=len(shares), path=merkle_paths(digests)[at])
    return Plan(share=shares[at], proof=proof)
