"""The held-out loss of a model with its standard error, from the losses of tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from iota.compute.evaluate import Losses
from iota.compute.tokens import Tokens
from iota.console.counts import counted
from iota.protocol.heldout import loss_text

LEAST_DOCUMENTS: Final = 8
"""Fewer say too little of how documents differ."""


@dataclass(frozen=True)
class HeldoutLoss:
    """A measured loss."""

    loss: float
    """Mean nats a token."""
    standard_error: float | None
    """Of the loss; None with fewer than `LEAST_DOCUMENTS` documents."""
    tokens: int
    documents: int | None = None
    """None where it is not known."""

    def __str__(self) -> str:
        documents = "" if self.documents is None else f" of {counted(self.documents, 'document')}"
        return loss_text(self.loss, self.standard_error, self.tokens) + documents


def heldout_loss(losses: Sequence[Losses], documents: Sequence[Tokens]) -> HeldoutLoss:
    """The mean of token losses over a sample of documents, and how far the sample may be off.

    Tokens of one document are alike, so documents are what is drawn independently: the standard error is
    that of a ratio estimate clustered by document (Cochran, Sampling Techniques, 1977, 9.5).

    Args:
        losses: (sequences, length) for each batch.
        documents: number of each token's document, (sequences, length) for each batch.
    """
    nats = np.concatenate([batch.reshape(-1) for batch in losses]).astype(np.float64)
    _, document = np.unique(np.concatenate([b.reshape(-1) for b in documents]), return_inverse=True)
    sums, counts = np.bincount(document, weights=nats), np.bincount(document)
    mean, number = float(nats.mean()), sums.size
    error = None
    if number >= LEAST_DOCUMENTS:
        spread = float(np.square(sums - mean * counts).sum())
        error = math.sqrt(number / (number - 1) * spread) / nats.size
    return HeldoutLoss(mean, error, int(nats.size), int(number))
