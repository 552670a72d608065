"""Receipts: a miner's chained and signed record of each op it ran."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from blake3 import blake3
from pydantic import Field

from iota.spec import Frozen, Hex32, Positive, Small

RECEIPT_VERSION: Final = 1
"""The form of a receipt and of what is signed. A batch names it by its domain, and a run has one."""
RECEIPTS_DOMAIN: Final = f"receipts/{RECEIPT_VERSION}"
GENESIS = "0" * 64
SKETCH_SIZE = 16
MAX_RECEIPTS = 1024
"""In one batch."""
MAX_LOSS = 1000.0
"""Nats a token: far above the loss of a guess, which is the logarithm of the vocabulary's size."""


class OpKind(StrEnum):
    FORWARD = "forward"
    BACKWARD = "backward"
    LOSS = "loss"
    STEP = "step"
    MERGE = "merge"


OpKey = tuple[int, int, int, int, OpKind]
"""(epoch, step, microbatch, attempt, kind)"""


class SignedHeader(Frozen):
    """The canonical header of an input frame and its sender's signature: who sent what."""

    header: Annotated[str, Field(max_length=2048)]
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class StepState(Frozen):
    """What a STEP commits to: the state that the next ops of this replica start from."""

    weights: Hex32
    """Digest of the weights after the step."""
    moments: Hex32
    """Digest of the optimizer's moments and step counts after the step."""
    change_sketch: tuple[float, ...] = Field(max_length=SKETCH_SIZE)
    moments_sketch: tuple[float, ...] = Field(max_length=SKETCH_SIZE)
    gradient_norm: Annotated[float, Field(ge=0)]


class Receipt(Frozen):
    """One op. `microbatch` and `attempt` are 0 for STEP and MERGE."""

    seq: Positive
    epoch: Small
    step: Small
    microbatch: Small = 0
    attempt: Small = 0
    stage: Small
    kind: OpKind
    version: Small
    """Weight version that the op used."""
    inputs: tuple[SignedHeader, ...] = Field((), max_length=2)
    output: Hex32
    """Digest of the op's output (frame payload; new weights for STEP; merged part for MERGE)."""
    sketch: tuple[float, ...] = Field((), max_length=SKETCH_SIZE)
    loss: float | None = None
    """Mean nats a token, LOSS only."""
    tokens: Small = 0
    state: StepState | None = None
    started: Annotated[float, Field(ge=0)]
    ended: Annotated[float, Field(ge=0)]
    device: Annotated[str, Field(max_length=200)]
    previous: Hex32 = GENESIS
    """Digest of the receipt before this one."""

    @property
    def key(self) -> OpKey:
        """The op that it is of, among those of its miner."""
        return (self.epoch, self.step, self.microbatch, self.attempt, self.kind)


class ReceiptBatch(Frozen):
    """Consecutive receipts; the signature is over the last digest, which covers all before it."""

    receipts: tuple[Receipt, ...] = Field(max_length=MAX_RECEIPTS)
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


def signed_payload(run: str, hotkey: str, head: str) -> bytes:
    """The payload that a batch is signed over, under `RECEIPTS_DOMAIN`."""
    return f"{run}\n{hotkey}\n{head}".encode()


def merkle_root(digests: list[str]) -> str:
    """Root of a binary tree over hex digests; odd nodes move up; domain-separated leaves."""
    if not digests:
        return GENESIS
    level = [blake3(b"\x00" + bytes.fromhex(d)).digest() for d in digests]
    while len(level) > 1:
        pairs = [blake3(b"\x01" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = pairs + ([level[-1]] if len(level) % 2 else [])
    return level[0].hex()
