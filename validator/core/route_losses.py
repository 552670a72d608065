"""Losses attributed to who carried the microbatches: ridge regression over an epoch's routes.

A replica whose output is worse than its siblings' raises the loss of each microbatch that it carries, beside
what chance and the others do (the idea is CLASP's). Nothing is replayed:

    loss = trend(step) + sum of effect[m] over the miners m that carried it forward + noise

The trend is each step's median, since a falling loss is no line, and who joins late would seem good. A LOSS
names what its miner likes, so losses are cut at `_FENCE` interquartile ranges beyond their quartiles. Columns
have mean zero, so the effects b = H^-1 X'y of a stage, with H = X'X + I, sum up to zero. Their variance is
s^2 H^-1 X'X H^-1, and b over its root is the z-score within the stage. Of honest miners 0.14 % are over 3.

Miners that always carry the same microbatches cannot be told apart: each has the same score. So it is where
all stages have as many replicas, and routes are chains: all of the chain are named.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from iota.protocol.receipts import OpKind
from validator.core.op_times import Floats
from validator.core.sealed import SealedEpoch

Z_LIMIT: Final = 3.0
MAX_COLUMNS: Final = 4096
"""Miners of one regression: its cost grows with their cube. Of more, each is held against the mean alone."""
LEAST_LOSSES: Final = 10
"""A miner that carried fewer microbatches is not judged: a mean of few losses is not normal."""
_RIDGE: Final = 1.0
"""As much as one more microbatch with the mean loss."""
_FENCE: Final = 3.0
_ALONE: Final = 1e-6
"""Of a miner that is alone in its stage the variance is zero, but for rounding."""
_LEAST_FREEDOM: Final = 10.0
"""Losses beyond the effects that the noise is measured by."""


@dataclass(frozen=True)
class Losses:
    """The losses of an epoch, and who carried each microbatch to its loss."""

    miners: Sequence[str]
    values: Floats
    """(n,) nats a token."""
    steps: npt.NDArray[np.int64]
    """(n,)"""
    carriers: npt.NDArray[np.int64]
    """(n, stages): indices into `miners`; those of two stages differ."""


def route_losses(sealed: SealedEpoch) -> Losses:
    """From the LOSS receipts of assigned ops, the plans and the re-routes; each op once."""
    last, again = sealed.spec.last_stage, _forward_again(sealed)
    numbers: dict[str, int] = {}
    rows: dict[tuple[int, int, int], tuple[float, list[int]]] = {}
    for hotkey in (hotkey for hotkey, miner in sealed.miners.items() if miner.stage == last):
        for receipt in sealed.receipts.get(hotkey, ()):
            step, microbatch, attempt = receipt.step, receipt.microbatch, receipt.attempt
            name, loss = (step, microbatch, attempt), receipt.loss
            if receipt.kind is not OpKind.LOSS or loss is None or name in rows:
                continue
            route = [
                sealed.owner(step, microbatch, _ran(again.get((step, microbatch, stage), ()), attempt), stage)
                for stage in range(last)
            ]
            route.append(sealed.owner(*name, last))
            if route[last] == hotkey and np.isfinite(loss):
                whole = [numbers.setdefault(miner, len(numbers)) for miner in route if miner is not None]
                if len(whole) == len(route):
                    rows[name] = loss, whole
    return Losses(
        miners=tuple(numbers),
        values=np.array([loss for loss, _ in rows.values()], dtype=np.float64),
        steps=np.array([step for step, _, _ in rows], dtype=np.int64),
        carriers=np.array([route for _, route in rows.values()], dtype=np.int64).reshape(-1, last + 1),
    )


def _forward_again(sealed: SealedEpoch) -> dict[tuple[int, int, int], list[int]]:
    """(step, microbatch, stage) -> re-routed attempts that ran a FORWARD of their own."""
    found: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for event in sealed.record.reroutes:
        if event.send_forward:
            found[event.step, event.microbatch, event.stage].append(event.attempt)
    return found


def _ran(again: Sequence[int], attempt: int) -> int:
    """The attempt whose activations a later one goes on from: the last that ran, up to it."""
    return max((ran for ran in again if ran <= attempt), default=0)


def z_scores(losses: Losses) -> dict[str, float]:
    """miner -> how many standard errors its microbatches' losses lie above what else explains them.

    Of miners with at least `LEAST_LOSSES` that are not alone in their stage. Linear in the losses, and the
    cube of at most `MAX_COLUMNS` miners.
    """
    count, columns = len(losses.values), len(losses.miners)
    if count < LEAST_LOSSES:
        return {}
    carried = np.bincount(losses.carriers.ravel(), minlength=columns)
    noise = _without_trend(losses)
    moment = np.zeros(columns)
    for of_stage in losses.carriers.T:
        moment += np.bincount(of_stage, noise, minlength=columns)
    if columns <= MAX_COLUMNS:
        inverse = np.linalg.inv(_gram(losses) + _RIDGE * np.eye(columns))
        effects, own, squares = inverse @ moment, np.diagonal(inverse), np.square(inverse).sum(axis=1)
    else:
        own = 1.0 / (carried - np.square(carried) / count + _RIDGE)
        effects, squares = own * moment, np.square(own)
    left = noise - effects[losses.carriers].sum(axis=1)
    freedom = count - len(np.unique(losses.steps)) - (columns - _RIDGE * own.sum())
    if freedom < _LEAST_FREEDOM:
        return {}
    shown = own - _RIDGE * squares
    errors = np.sqrt(np.maximum(shown, 0.0) * np.square(left).sum() / freedom)
    judged = (shown > _ALONE * own) & (errors > 0) & (carried >= LEAST_LOSSES)
    return {losses.miners[i]: float(effects[i] / errors[i]) for i in np.flatnonzero(judged).tolist()}


def _without_trend(losses: Losses) -> Floats:
    """(n,) losses over their step's median, cut at the fences and with mean zero."""
    order = np.argsort(losses.steps, kind="stable")
    _, begins = np.unique(losses.steps[order], return_index=True)
    above = np.empty(len(order))
    for of_step in np.split(order, begins[1:]):
        above[of_step] = losses.values[of_step] - np.median(losses.values[of_step])
    low, high = np.percentile(above, (25, 75))
    reach = _FENCE * (high - low)
    cut = np.clip(above, low - reach, high + reach)
    return np.asarray(cut - cut.mean())


def _gram(losses: Losses) -> Floats:
    """X'X of columns with mean zero: how many microbatches each two miners carried both, less chance."""
    columns, count = len(losses.miners), len(losses.values)
    gram = np.zeros(columns * columns)
    for left in losses.carriers.T:
        for right in losses.carriers.T:
            np.add.at(gram, left * columns + right, 1.0)
    carried = np.bincount(losses.carriers.ravel(), minlength=columns)
    return gram.reshape(columns, columns) - np.outer(carried, carried / count)
