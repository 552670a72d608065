"""The outer optimizer: m <- mu·m + D; W <- W - eta·(D + mu·m)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from iota.outer.partition import Vector


@dataclass(frozen=True)
class OuterState:
    """A stage's base (or one partition of it): weights and outer momentum, fp32 of one length."""

    weights: Vector
    momentum: Vector


def outer_step(state: OuterState, merged: Vector, eta: float, mu: float) -> OuterState:
    """Apply a merged pseudo-gradient, and return new vectors. Bitwise equal on every machine.

    The update is that of torch.optim.SGD with `nesterov=True`. With eta 1 and mu 0 it is W - D, which
    for one replica is its own final weights up to rounding. Every operation is elementwise in fp32, with
    one rounding each. Raises ValueError for vectors of different lengths.
    """
    if not state.weights.shape == state.momentum.shape == merged.shape:
        raise ValueError("weights, momentum and merged pseudo-gradient must be of one length")
    rate, decay = np.float32(eta), np.float32(mu)
    momentum: Vector = state.momentum * decay
    np.add(momentum, merged, out=momentum)
    update: Vector = momentum * decay
    np.add(update, merged, out=update)
    np.multiply(update, rate, out=update)
    return OuterState(np.subtract(state.weights, update), momentum)
