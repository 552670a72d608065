"""Content of receipts that the intake takes, for runs in which nothing computes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from iota.protocol.frames import Direction, FrameName
from iota.protocol.receipts import SKETCH_SIZE, OpKind, SignedHeader, StepState, counted_digest
from iota.spec import RunSpec
from iota.wire.frame import make_header

SKETCH = (0.0,) * SKETCH_SIZE
OUTPUT = "a" * 64


def content(kind: OpKind, tokens: int) -> dict[str, Any]:
    """What a receipt of this kind has beside its name, without inputs."""
    if kind is OpKind.STEP:
        return {"output": OUTPUT, "state": step_state()}
    loss = 1.0 if kind is OpKind.LOSS else None
    return {"output": OUTPUT, "sketch": SKETCH, "tokens": tokens, "loss": loss}


def step_state(counted: Iterable[tuple[int, int]] = (), learning_rate: float = 0.1) -> StepState:
    """What a STEP commits to that applied what its close says."""
    return StepState(
        weights=OUTPUT,
        moments=OUTPUT,
        change_sketch=SKETCH,
        moments_sketch=SKETCH,
        gradient_norm=1.0,
        counted=counted_digest(counted),
        learning_rate=learning_rate,
    )


def named_input(spec: RunSpec, name: FrameName, sender: str, receiver: str) -> SignedHeader:
    """The header of a frame whose payload is what `content` claims; nobody has signed it."""
    header = make_header(spec, name, OUTPUT, sender, receiver).canonical().decode()
    return SignedHeader(header=header, signature="00" * 64)


def frame_name(
    stage: int, direction: Direction, microbatch: int = 0, *, epoch: int = 0, step: int = 0, attempt: int = 0
) -> FrameName:
    """The name of a frame."""
    return FrameName(
        epoch=epoch, step=step, microbatch=microbatch, attempt=attempt, stage=stage, direction=direction
    )
