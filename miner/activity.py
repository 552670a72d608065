"""Counters behind a miner's status and log: seconds, tokens, bytes, losses. Informational only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Activity:
    """Totals of one life. The device thread counts the computing and the losses, the event loop the rest."""

    compute_s: float = 0.0
    serialise_s: float = 0.0
    transfer_s: float = 0.0
    """Sum over all frames. Transfers overlap, so it can exceed the wall time."""
    wait_s: float = 0.0
    """Time without a runnable op while steps were left to train, and before the first epoch begins."""
    tokens: int = 0
    """Tokens of the microbatches whose backward ran."""
    loss_sum: float = 0.0
    """Last stage only: sum over its LOSS ops (nats a token)."""
    losses: int = 0
    sent_bytes: int = 0
    """Bytes of frames that were stored."""
    received_bytes: int = 0
    """Bytes of frames that were fetched."""
