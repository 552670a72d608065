"""Receipts: a miner's chained and signed record of each op it ran."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from blake3 import blake3
from pydantic import Field

from iota.spec import Frozen

GENESIS = "0" * 64
SKETCH_SIZE = 16

_Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Small = Annotated[int, Field(ge=0, lt=2**31)]


class OpKind(StrEnum):
    FORWARD = "forward"
    BACKWARD = "backward"
    LOSS = "loss"
    STEP = "step"
    MERGE = "merge"


class SignedHeader(Frozen):
    """The canonical header of an input frame and its sender's signature: who sent what."""

    header: Annotated[str, Field(max_length=2048)]
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class StepState(Frozen):
    """What a STEP commits to: the state that the next ops of this replica start from."""

    weights: _Hex
    """Digest of the weights after the step."""
    moments: _Hex
    """Digest of the optimizer's moments and step counts after the step."""
    change_sketch: tuple[float, ...] = Field(max_length=SKETCH_SIZE)
    moments_sketch: tuple[float, ...] = Field(max_length=SKETCH_SIZE)
    gradient_norm: Annotated[float, Field(ge=0)]


class Receipt(Frozen):
    """One op. `microbatch` and `attempt` are 0 for STEP and MERGE."""

    seq: Annotated[int, Field(ge=1, lt=2**63)]
    epoch: _Small
    step: _Small
    microbatch: _Small = 0
    attempt: _Small = 0
    stage: _Small
    kind: OpKind
    version: _Small
    """Weight version that the op used."""
    inputs: tuple[SignedHeader, ...] = Field((), max_length=2)
    output: _Hex
    """Digest of the op's output (frame payload; new weights for STEP; merged part for MERGE)."""
    sketch: tuple[float, ...] = Field((), max_length=SKETCH_SIZE)
    loss: float | None = None
    """Mean nats a token, LOSS only."""
    tokens: _Small = 0
    state: StepState | None = None
    started: Annotated[float, Field(ge=0)]
    ended: Annotated[float, Field(ge=0)]
    device: Annotated[str, Field(max_length=200)]
    previous: _Hex = GENESIS
    """Digest of the receipt before this one."""


class ReceiptBatch(Frozen):
    """Consecutive receipts; the signature is over the last digest, which covers all before it."""

    receipts: tuple[Receipt, ...] = Field(max_length=1024)
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


def signed_payload(run: str, hotkey: str, head: str) -> bytes:
    """What a batch signature covers (under the domain `iota/receipts/1`)."""
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
