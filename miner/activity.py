"""What a miner's status counts: seconds by activity, and tokens. Informational only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Activity:
    """Totals of one life. The device's thread adds to the first two, the event loop to the others."""

    compute_s: float = 0.0
    serialise_s: float = 0.0
    transfer_s: float = 0.0
    """Sum over all frames, which overlap."""
    wait_s: float = 0.0
    """While steps were left to train and no op could run."""
    tokens: int = 0
    """Of microbatches whose backward ran."""
