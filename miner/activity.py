"""Counters behind a miner's status: seconds by activity, and tokens. Informational only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Activity:
    """Totals of one life. The device thread adds to the first two, the event loop to the others."""

    compute_s: float = 0.0
    serialise_s: float = 0.0
    transfer_s: float = 0.0
    """Sum over all frames. Transfers overlap, so it can exceed the wall time."""
    wait_s: float = 0.0
    """Time without a runnable op while steps were left to train."""
    tokens: int = 0
    """Tokens of the microbatches whose backward ran."""
