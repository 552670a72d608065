"""Receipts' times against what a device can do: it runs one op at a time, and not faster than it can compute.

A miner names its times itself. So they condemn nobody: who is named here is audited first (`flags.py`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from iota.protocol.receipts import OpKind
from validator.core.scoring import op_flops
from validator.core.sealed import SealedEpoch

Floats = npt.NDArray[np.float64]
Rates = Mapping[tuple[int, OpKind], Floats]
"""(stage, kind) -> percentiles of the logarithms of one epoch's FLOP rates, lowest first."""

ON_DEVICE: Final = (OpKind.FORWARD, OpKind.BACKWARD, OpKind.LOSS, OpKind.EVAL, OpKind.STEP)
"""Ops that have the device to themselves. A MERGE runs beside them."""
_CODES: Final = {kind: code for code, kind in enumerate(ON_DEVICE)}
_WITH_FLOPS: Final = ON_DEVICE[:4]
LEAST_OPS: Final = 3
LEAST_SHARE: Final = 0.05
"""A miner is named for at least so many of its ops, and at least this share of them: a clock that is set
right at a restart moves a few."""
FASTER: Final = 4.0
"""No op is too fast below so many times the upper quartile, however alike the others are: devices of one run
differ by as much (a data centre's card and a consumer's)."""
_FENCE: Final = 1.5
"""Tukey's: interquartile ranges above the upper quartile."""
_PERCENTS: Final = np.arange(101)
_LATEST_S: Final = 1e12
"""Later times are taken as this one: differences keep their precision."""
_ROUNDING_S: Final = 1e-3
_SHORTEST_S: Final = 1e-6


@dataclass(frozen=True)
class OpTimes:
    """Times of one miner's ops on its device, by their start. Arrays of one length."""

    kinds: npt.NDArray[np.int8]
    """Indices into `ON_DEVICE`."""
    started: Floats
    """Unix seconds."""
    ended: Floats

    @classmethod
    def of(cls, ops: Iterable[tuple[OpKind, float, float]]) -> OpTimes:
        """From (kind, started, ended) in any order."""
        rows = [(_CODES[kind], started, ended) for kind, started, ended in ops]
        table = np.array(rows, dtype=np.float64).reshape(-1, 3)
        table = table[np.argsort(table[:, 1], kind="stable")]
        times = np.clip(np.nan_to_num(table[:, 1:], nan=0.0), 0.0, _LATEST_S)
        return cls(table[:, 0].astype(np.int8), times[:, 0], np.maximum(times[:, 0], times[:, 1]))


def op_times(sealed: SealedEpoch) -> dict[str, OpTimes]:
    """The times of each miner's ops of its own stage."""
    return {
        hotkey: OpTimes.of(
            (receipt.kind, receipt.started, receipt.ended)
            for receipt in sealed.receipts.get(hotkey, ())
            if receipt.kind in _CODES and receipt.stage == miner.stage
        )
        for hotkey, miner in sealed.miners.items()
    }


def overlapping(times: OpTimes) -> int:
    """How many of a miner's ops began before one that had begun earlier was over."""
    reach = np.maximum.accumulate(times.ended)
    return int(np.count_nonzero(times.started[1:] < reach[:-1] - _ROUNDING_S))


def is_many(ops: int, of: int) -> bool:
    """Whether so many odd ops `of` a miner's are no accident."""
    return ops >= LEAST_OPS and ops >= LEAST_SHARE * of


@dataclass(frozen=True)
class Speeds:
    """The FLOP rates of one stage's ops of one kind, in one epoch."""

    by_miner: Mapping[str, Floats]
    """hotkey -> logarithms of FLOPs a second, one for each op."""

    @property
    def percentiles(self) -> Floats:
        """What is kept for later epochs: of all replicas' ops, each op once."""
        return np.asarray(np.percentile(np.concatenate(list(self.by_miner.values())), _PERCENTS))

    def too_fast(self, past: Iterable[Floats]) -> tuple[float, dict[str, int]]:
        """The largest plausible rate (FLOPs a second), and how many ops of each miner are above it.

        It is Tukey's upper fence over this epoch and the `past`, which count alike; of logarithms, since
        rates vary by factors, and at least `FASTER` times the upper quartile. It holds while fewer than a
        quarter of a stage's ops lie: where a stage has three replicas, only against who begins to.
        """
        low, high = np.percentile(np.concatenate([self.percentiles, *past]), (25, 75))
        fence = float(high + max(_FENCE * (high - low), math.log(FASTER)))
        above = {hotkey: int(np.count_nonzero(own > fence)) for hotkey, own in self.by_miner.items()}
        return math.exp(fence), {hotkey: count for hotkey, count in above.items() if count}


def speeds(sealed: SealedEpoch, times: Mapping[str, OpTimes]) -> dict[tuple[int, OpKind], Speeds]:
    """By (stage, kind) of those ops that have FLOPs."""
    found: dict[tuple[int, OpKind], dict[str, Floats]] = defaultdict(dict)
    for hotkey, each in times.items():
        stage = sealed.miners[hotkey].stage
        rates = -np.log(np.maximum(each.ended - each.started, _SHORTEST_S))
        for code, kind in enumerate(_WITH_FLOPS):
            if (own := rates[each.kinds == code]).size:
                found[stage, kind][hotkey] = own + math.log(_flops(sealed, hotkey, kind))
    return {key: Speeds(by_miner) for key, by_miner in found.items()}


def _flops(sealed: SealedEpoch, hotkey: str, kind: OpKind) -> int:
    """Of one op of this kind of a miner that has any."""
    stage = sealed.miners[hotkey].stage
    one = next(r for r in sealed.receipts[hotkey] if r.kind is kind and r.stage == stage)
    return op_flops(sealed.spec, one, weight_gradient=True)
