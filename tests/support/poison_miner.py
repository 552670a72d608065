"""A miner whose pseudo-gradient goes the other way, a hundred times as far."""

from __future__ import annotations

import numpy as np

from iota.outer.partition import Vector
from miner.bases import BaseKeeper
from tests.support.miner_program import run_miner

_honest = BaseKeeper.pseudo_gradient


async def _poisoned(self: BaseKeeper) -> Vector:
    found: Vector = np.float32(-100) * await _honest(self)
    return found


def main() -> None:
    BaseKeeper.pseudo_gradient = _poisoned  # type: ignore[method-assign]
    run_miner()
