"""Names and results of ops. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Microbatch:
    """Name of a microbatch within a run, with the attempt."""

    epoch: int
    step: int
    index: int
    attempt: int = 0


@dataclass(frozen=True)
class Output:
    """Result of a FORWARD (for the next stage), or of a BACKWARD or LOSS (for the previous stage)."""

    payload: bytes | memoryview | None
    """Wire bytes, where they lie on the host; None for the BACKWARD of stage 0, which sends nothing."""
    digest: str
    """BLAKE3 (hex) of the payload; without one, of the raw fp32 gradient at the embedding's output."""
    tokens: int
    loss: float | None = None
    """Mean nats per token of a LOSS."""


@dataclass(frozen=True)
class StepOutput:
    """Result of a STEP."""

    version: int
    """The weight version that the step produced."""
    gradient_norm: float
    """Norm of the mean gradient before clipping."""
