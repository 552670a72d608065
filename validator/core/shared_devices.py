"""Replicas of one stage that share a device: it works for them in turns, so that they are never busy at once.

Looked at are pairs of one stage, whose work does not depend on each other's. (Replicas of two stages that
work on the same microbatches take turns honestly, whoever owns them.)

A *turn* is where one of a pair begins an op after the other began one, in order of their starts. The pair
*meets* at a turn where the earlier op is not over. Were both independent, a start would meet with probability
f, the share of the time in which the other is busy. So for `turns` turns with mean f, and at most `met`
meetings, Chernoff's bound holds (of unequal probabilities too: Hoeffding 1956, theorem 4):

    P <= exp(-turns * KL(met / turns || f))

A pair is named where that is below `FALSE_RATE` over the number of all pairs of the stage. So under
independence a stage has a false flag in at most one of 1,000 epochs. Where replicas are not independent, f is
lowered:

- A stage before has one replica that feeds them in turns: f is multiplied by the share of their expected
  common busy time that the other pairs of the stage have. A stage of two replicas has no other pair, and
  shows nothing.
- Both have the same steady rhythm: f is at most the meetings that they would have, were one of them later by
  any sixteenth of its cycle. Who takes turns on one device in such a rhythm is not seen, unless it is busy;
  of honest pairs that are busy for 40 % of a cycle which varies by 1 %, 3 % are named (simulated).

A device that runs several ops *at once*, each slower, is not seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np

from validator.core.op_times import Floats, OpTimes

FALSE_RATE: Final = 1e-3
"""Chance of a false flag in one epoch of a stage whose replicas are independent."""
POINTS: Final = 2048
"""Points in time at which all pairs are looked at, to find each miner's likeliest partner."""
_SHIFTS: Final = np.arange(1, 16) / 16
"""Of a cycle: other phases of a rhythm."""
_TRIMMED: Final = (5, 95)
"""Percentiles of all starts between which the points lie: a few absurd times do not spread them."""


def shared_devices(replicas: Mapping[str, OpTimes]) -> dict[str, str]:
    """miner -> the replica of its stage that it shares a device with, by all that their times say.

    Args:
        replicas: of one stage. The cost is linear in their ops, and 2,048 products for each pair.
    """
    names = [hotkey for hotkey, times in replicas.items() if len(times.started)]
    if len(names) < 3:
        return {}
    busy = _busy(_points([replicas[name] for name in names]), [replicas[name] for name in names])
    common = busy @ busy.T
    own = np.diagonal(common).astype(np.float64)
    expected = np.outer(own, own) / busy.shape[1]
    for each in (common, expected):
        np.fill_diagonal(each, 0.0)
    lacking = (expected - common) / np.sqrt(expected + 1.0)
    np.fill_diagonal(lacking, -np.inf)
    limit = FALSE_RATE / (len(names) * (len(names) - 1) / 2)
    totals, found = (common.sum(dtype=np.float64) / 2, expected.sum() / 2), {}
    for a, b in enumerate(lacking.argmax(axis=1)):
        of_others = totals[1] - expected[a, b]
        share = min(1.0, max(0.0, (totals[0] - common[a, b]) / of_others)) if of_others > 0 else 0.0
        if chance(replicas[names[a]], replicas[names[b]], share) < limit:
            found[names[a]] = names[b]
    return found


def chance(a: OpTimes, b: OpTimes, share: float = 1.0) -> float:
    """Bound on the chance that two independent replicas meet as seldom as these. 1 where it says nothing.

    Args:
        share: by which a meeting is less likely for all replicas of the stage.
    """
    turns, met = _meetings(a, b)
    whole = max(a.ended.max(), b.ended.max()) - min(a.started[0], b.started[0])
    busy = share * (_busy_time(a) + _busy_time(b)) / (2 * whole) if whole > 0 else 0.0
    found = _bound(turns, met, busy)
    if found >= FALSE_RATE:
        return found
    cycle = np.median(np.diff(a.started))
    later = (_meetings(replace(a, started=a.started + by, ended=a.ended + by), b) for by in cycle * _SHIFTS)
    return _bound(turns, met, min(busy, *(others / max(1, count) for count, others in later)))


def _meetings(a: OpTimes, b: OpTimes) -> tuple[int, int]:
    """How many turns a pair has, and at how many it meets."""
    started = np.concatenate([a.started, b.started])
    order = np.argsort(started, kind="stable")
    whose = (np.arange(len(started)) >= len(a.started))[order]
    ended = np.concatenate([a.ended, b.ended])[order]
    turns = np.flatnonzero(whose[1:] != whose[:-1])
    return len(turns), int(np.count_nonzero(started[order][turns + 1] < ended[turns]))


def _bound(turns: int, met: int, busy: float) -> float:
    """Chernoff's bound on at most `met` meetings; 1 where they are no fewer than expected."""
    share = met / max(1, turns)
    return math.exp(-turns * _divergence(share, busy)) if share < busy else 1.0


def _divergence(met: float, busy: float) -> float:
    """KL(met || busy) of two coins, in nats; 0 <= met < busy <= 1."""
    if busy >= 1.0:
        return math.inf
    missed = (1 - met) * math.log((1 - met) / (1 - busy))
    return missed + (met * math.log(met / busy) if met > 0 else 0.0)


def _busy_time(times: OpTimes) -> float:
    """Seconds in which a replica runs an op."""
    reach = np.maximum.accumulate(times.ended)
    begins = np.maximum(times.started[1:], reach[:-1])
    first = times.ended[0] - times.started[0]
    return float(first + np.maximum(times.ended[1:] - begins, 0.0).sum())


def _points(replicas: list[OpTimes]) -> Floats:
    first, last = np.percentile(np.concatenate([times.started for times in replicas]), _TRIMMED)
    return np.linspace(first, last, POINTS)


def _busy(points: Floats, replicas: list[OpTimes]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """(replicas, points): 1 where the replica runs an op at that time, else 0."""
    busy = np.zeros((len(replicas), len(points)), dtype=np.float32)
    for row, times in zip(busy, replicas, strict=True):
        at = np.searchsorted(times.started, points, side="right") - 1
        row[:] = (at >= 0) & (np.maximum.accumulate(times.ended)[at] > points)
    return busy
