"""Names and results of ops. No torch."""

from __future__ import annotations

from dataclasses import dataclass

Sketch = tuple[float, ...]


@dataclass(frozen=True, order=True)
class Microbatch:
    """The unit of work, and which attempt at it this is."""

    epoch: int
    step: int
    index: int
    attempt: int = 0


@dataclass(frozen=True)
class Output:
    """Of a FORWARD (values for the next stage), or a BACKWARD or LOSS (gradient for the one before)."""

    payload: bytes | None
    """Wire bytes; None for the backward of stage 0, which has nobody to send to."""
    digest: str
    """BLAKE3 of the payload; of the raw fp32 gradient at the embedding's output where there is none."""
    sketch: Sketch
    tokens: int
    loss: float | None = None
    """Mean nats a token, of a LOSS."""


@dataclass(frozen=True)
class StepOutput:
    version: int
    """The version that the step made."""
    gradient_norm: float
    """Of the mean gradient, before clipping."""
    weights: str
    moments: str
    """Digests after the step."""
    change_sketch: Sketch
    moments_sketch: Sketch
