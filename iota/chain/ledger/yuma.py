"""Yuma consensus for one epoch: validators' weights in, incentives and dividends out.

After the Bittensor runtime's epoch, without what a subnet of one machine does not need: no moving
average of bonds, no bond penalty, no take, plain floats for its fixed point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

KAPPA: Final = 0.5
"""Share of active stake that must support a weight for it to count."""


@dataclass(frozen=True, slots=True)
class YumaResult:
    """Shares by uid. Each sums to 1, or to 0 where no weight found enough support."""

    consensus: Mapping[int, float]
    """The weight that stake-weighted majority supports, before normalisation."""
    incentive: Mapping[int, float]
    dividends: Mapping[int, float]


def yuma(
    stakes: Mapping[int, float], weights: Mapping[int, Mapping[int, float]], uids: tuple[int, ...]
) -> YumaResult:
    """One epoch.

    Args:
        stakes: of the validators that count, by uid; above zero.
        weights: their rows, by validator uid and then by target uid; not negative.
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
            if ranks[target] > 0:  # this validator's bond: its share of what supported the target
                earned[validator] += incentive[target] * stake[validator] * weight / ranks[target]
    return YumaResult(consensus, incentive, _normalised(earned))


def _majority_weight(votes: list[tuple[float, float]]) -> float:
    """The greatest weight that voters with at least `KAPPA` of all active stake give or exceed.

    `votes` are (weight, stake share). Stake that cast no weights supports nothing but counts.
    """
    support = 0.0
    for weight, share in sorted(votes, reverse=True):
        support += share
        if support >= KAPPA - 1e-12:  # shares are rounded: a half made of many parts is a half
            return weight
    return 0.0


def _normalised(values: Mapping[int, float]) -> dict[int, float]:
    total = sum(values.values())
    return {key: value / total if total > 0 else 0.0 for key, value in values.items()}
