"""Yuma consensus for one epoch: incentives and dividends from validators' weights.

Follows the epoch of the Bittensor runtime, simplified: no moving average of bonds, no bond penalty, no take,
and floats in place of fixed point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

KAPPA: Final = 0.5
"""Share of active stake that has to support a weight; the runtime's default."""


@dataclass(frozen=True, slots=True)
class YumaResult:
    """Shares by uid. Incentive and dividends sum to 1, or to 0 where no weight has enough support."""

    consensus: Mapping[int, float]
    """The weight that a majority of stake supports, not normalised."""
    incentive: Mapping[int, float]
    dividends: Mapping[int, float]


def yuma(
    stakes: Mapping[int, float], weights: Mapping[int, Mapping[int, float]], uids: tuple[int, ...]
) -> YumaResult:
    """Run one epoch.

    Args:
        stakes: stake of each active validator by uid; above 0.
        weights: weight by validator uid and target uid; 0 or more.
        uids: all neurons.
    """
    rows = {v: _normalised(weights[v]) for v in sorted(stakes) if sum(weights.get(v, {}).values()) > 0}
    stake = _normalised({v: stakes[v] for v in sorted(stakes)})
    known = set(uids)
    consensus = {
        target: _majority_weight([(rows[v].get(target, 0.0), stake[v]) for v in rows]) for target in uids
    }
    clipped = {v: {t: min(w, consensus[t]) for t, w in row.items() if t in known} for v, row in rows.items()}
    ranks = {t: sum(stake[v] * row.get(t, 0.0) for v, row in clipped.items()) for t in uids}
    incentive = _normalised(ranks)
    earned = dict.fromkeys(uids, 0.0)
    for validator, row in clipped.items():
        for target, weight in row.items():
            if ranks[target] > 0:  # the validator's bond: its share of the target's rank
                earned[validator] += incentive[target] * stake[validator] * weight / ranks[target]
    return YumaResult(consensus, incentive, _normalised(earned))


def _majority_weight(votes: list[tuple[float, float]]) -> float:
    """The greatest weight that validators with at least `KAPPA` of all active stake give or exceed.

    `votes` are (weight, stake share) of those with weights; the others' stake counts in the total.
    """
    support = 0.0
    for weight, share in sorted(votes, reverse=True):
        support += share
        if support >= KAPPA - 1e-12:  # tolerance for the rounding of a sum of shares
            return weight
    return 0.0


def _normalised(values: Mapping[int, float]) -> dict[int, float]:
    total = sum(values.values())
    return {key: value / total if total > 0 else 0.0 for key, value in values.items()}
