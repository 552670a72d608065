"""Content of receipts that the intake takes, for runs in which nothing computes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from iota.protocol.fingerprints import Fingerprint
from iota.protocol.frames import Direction, FrameName
from iota.protocol.merkle import EMPTY
from iota.protocol.receipts import Beginning, Commitment, OpKind, SignedHeader, StepUpdate, counted_digest
from iota.spec import RunSpec
from iota.wire.frame import make_header

OUTPUT = "a" * 64
BEGINNING = Beginning(
    rest="d" * 64,
    fingerprint=Fingerprint(forward="1" * 64, backward="2" * 64, step="3" * 64, wide="4" * 64),
)
"""What a life shows whose base and device nobody looks at."""


def content(kind: OpKind, tokens: int) -> dict[str, Any]:
    """What a receipt of this kind has beside its name, without inputs."""
    if kind is OpKind.STEP:
        return step_content()
    if kind is OpKind.COMMIT:
        return commit_content()
    loss = 1.0 if kind in (OpKind.LOSS, OpKind.EVAL) else None
    return {"output": OUTPUT, "tokens": tokens, "loss": loss}


def step_content(counted: Iterable[tuple[int, int]] = (), learning_rate: float = 0.1) -> dict[str, Any]:
    """What the receipt of a STEP says that applied what its close says."""
    digest = counted_digest(counted)
    update = StepUpdate(gradient_norm=1.0, counted=digest, learning_rate=learning_rate)
    return {"output": digest, "update": update}


def commit_content(*, before: bool = False, first: bool = False) -> dict[str, Any]:
    """What the receipt of a COMMIT says; `before` with weights of the version before, `first` of a life."""
    made = Commitment(
        weights=OUTPUT,
        moments="b" * 64,
        before="c" * 64 if before else EMPTY,
        beginning=BEGINNING if first else None,
    )
    return {"output": made.root, "commitment": made}


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
