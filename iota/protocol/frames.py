"""Names of frames, and of objects in the store, as notices and reports give them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from iota.protocol.fields import Hotkey, Signature
from iota.protocol.receipts import OpKey, OpKind
from iota.spec import Count, Frozen, Hex32, Small

KEPT_DOMAIN: Final = "frame-kept/1"
"""Domain of a receiver's acknowledgement of a frame, and the version of its form."""
Key = Annotated[str, Field(pattern=r"^[A-Za-z0-9._/-]{1,512}$")]
"""A key of the object store; `iota.objects.validate_key` has the full grammar."""


class Direction(StrEnum):
    """The direction of a frame: activations go forward, gradients backward."""

    FORWARD = "f"
    BACKWARD = "b"

    @classmethod
    def of(cls, kind: OpKind) -> Direction:
        """The direction of the frame that an op on a microbatch makes. EVAL makes none."""
        return cls.FORWARD if kind is OpKind.FORWARD else cls.BACKWARD

    def destination(self, stage: int, stages: int) -> int | None:
        """The stage that a frame of `stage` goes to; None where it would leave the model."""
        towards = stage + (1 if self is Direction.FORWARD else -1)
        return towards if 0 <= towards < stages else None


class FrameName(Frozen):
    """The name of a boundary tensor: its microbatch, the stage and attempt that made it, its direction."""

    epoch: Small
    step: Small
    microbatch: Small
    attempt: Small
    stage: Small
    direction: Direction

    @classmethod
    def of(cls, op: OpKey, stage: int) -> FrameName:
        """The name of the frame that an op on a microbatch makes at `stage`."""
        epoch, step, microbatch, attempt, kind = op
        return cls(
            epoch=epoch,
            step=step,
            microbatch=microbatch,
            attempt=attempt,
            stage=stage,
            direction=Direction.of(kind),
        )

    def __str__(self) -> str:
        place = f"{self.microbatch}.{self.attempt}/{self.stage}.{self.direction}"
        return f"{self.epoch}/{self.step}/{place}"


class FrameKept(Frozen):
    """The receiver's word that a frame lies on its disk, checked: it came over a direct link."""

    receiver: Hotkey
    signature: Signature
    """The receiver's, over `signing_bytes(KEPT_DOMAIN, kept_statement(run, name, digest))`."""


class FrameNotice(Frozen):
    """Announces that a frame is delivered. `digest` and `size` (bytes) are those of the whole frame."""

    name: FrameName
    digest: Hex32
    size: Small
    kept: FrameKept | None = None
    """None: it is in the object store. Else it went to its receiver over a direct link."""


def kept_statement(run: str, name: FrameName, digest: str) -> bytes:
    """What a receiver signs of a frame whose bytes have this BLAKE3 (hex).

    The name is there since the orchestrator, which has not the frame, could not tell of which one a digest
    is: a sender would claim one frame with the acknowledgement of another.
    """
    return f"{run}\n{name}\n{digest}".encode()


class EvidenceItem(StrEnum):
    """What a validator may ask a miner for. Each has a number beside it, its version."""

    SNAPSHOT = "snapshot"
    """Weights and optimizer moments at a weight version."""
    FRAMES = "frames"
    """The frames of a step that the miner has received and sent; its version is the step."""
    FEEDBACK = "feedback"
    """The error feedback that the miner began the epoch with; its version is that of the base."""


class StoredObject(Frozen):
    """An object in the store; `digest` is the BLAKE3 of its bytes, `size` their number."""

    key: Key
    digest: Hex32
    size: Count
