"""The held-out loss of an epoch's base, from the losses of its held-out microbatches. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from iota.console.counts import counted

LEAST_LOSSES: Final = 4
"""Fewer say too little of how microbatches differ."""


@dataclass(frozen=True)
class BaseLoss:
    """The held-out loss of a base."""

    loss: float
    """Mean nats a token."""
    standard_error: float | None
    """Of the loss; None with fewer than `LEAST_LOSSES` microbatches."""
    microbatches: int
    tokens: int
    """That it was measured on."""

    def __str__(self) -> str:
        return loss_text(self.loss, self.standard_error, self.tokens)


def loss_text(loss: float, standard_error: float | None, tokens: int) -> str:
    """A held-out loss in words."""
    error = "" if standard_error is None else f" ± {standard_error:.4f} (standard error)"
    return f"{loss:.4f}{error} nats a token, on {counted(tokens, 'token')}"


def base_loss(losses: Collection[float], tokens: int) -> BaseLoss | None:
    """The mean of the losses of microbatches of `tokens` tokens each; None where there are none.

    The standard error takes microbatches as what is drawn independently: s / sqrt(n), with s the standard
    deviation of the n losses. The sequences of one are far apart in the held-out text (`iota.data.samples`),
    so that two microbatches seldom share a document; where they do, as in a text of few documents, the true
    error is larger. The order of the losses does not matter.
    """
    count = len(losses)
    if not count:
        return None
    mean = math.fsum(losses) / count
    error = None
    if count >= LEAST_LOSSES:
        error = math.sqrt(math.fsum((loss - mean) ** 2 for loss in losses) / (count - 1) / count)
    return BaseLoss(mean, error, count, count * tokens)
