"""Receipts: a miner's chained and signed record of each op that it ran."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Final

from blake3 import blake3
from pydantic import Field

from iota.protocol.fingerprints import Fingerprint, fingerprint_nonce
from iota.protocol.merkle import EMPTY, merkle_root
from iota.spec import Frozen, Hex32, Positive, Small

RECEIPT_VERSION: Final = 5
"""Version of the form of a receipt and of the signed bytes. It is part of the signature's domain."""
RECEIPTS_DOMAIN: Final = f"receipts/{RECEIPT_VERSION}"
GENESIS = "0" * 64
"""Stands for "none before": the previous digest of a first receipt, and the root of no receipts."""
MAX_RECEIPTS = 1024
"""Receipts in one batch."""
MAX_LOSS = 1000.0
"""Nats a token: far above the loss of a uniform guess, which is the logarithm of the vocabulary's size."""


class OpKind(StrEnum):
    """Kinds of ops; the glossary (docs/glossary.md) says what each computes."""

    FORWARD = "forward"
    BACKWARD = "backward"
    LOSS = "loss"
    EVAL = "eval"
    STEP = "step"
    COMMIT = "commit"
    MERGE = "merge"


_COUNTED_FORM: Final = "counted/1"
"""First line of a counted list's text: its form and version."""

OpKey = tuple[int, int, int, int, OpKind]
"""(epoch, step, microbatch, attempt, kind). Of a COMMIT `step` is the version that it commits to. Of a MERGE:
(epoch, merged stage, part, 0, kind)."""


class SignedHeader(Frozen):
    """The canonical header of an input frame, and its sender's signature over it."""

    header: Annotated[str, Field(max_length=2048)]
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class StepUpdate(Frozen):
    """What a STEP applied. The state that it made shows in the next commitment."""

    gradient_norm: Annotated[float, Field(ge=0)]
    """L2 norm of the mean gradient before clipping."""
    counted: Hex32
    """Digest of the counted list that was summed (`counted_digest`), as `step_close` gave it."""
    learning_rate: float
    """The learning rate that was applied, as `step_close` gave it."""


class Beginning(Frozen):
    """What a replica shows where it begins with a base, besides its state."""

    rest: Hex32
    """Root of what else is in the base: its outer momentum, and its own weights where replicas start with
    rounded ones. With the root of the weights it gives the base's digest (`iota.outer.base_values`): nobody
    need fetch a base to see that the miner began with it."""
    fingerprint: Fingerprint
    """Of the device that computes its ops, for the nonce of `Commitment.nonce`."""


class Commitment(Frozen):
    """The state of a replica at one version, as Merkle roots (`iota.compute.commitment`)."""

    weights: Hex32
    moments: Hex32
    """Of the optimizer's moments and step counts; `merkle.EMPTY` where the optimizer has none."""
    before: Hex32 = EMPTY
    """Of the weights of the version before, where the next STEP's gradient is taken (`delayed` only)."""
    feedback: Hex32 = EMPTY
    """Of the error feedback (`iota.outer.error_feedback`): at the version that is the base of what the epoch
    begins with, at the epoch's last of what its pseudo-gradient leaves. `merkle.EMPTY` for none."""
    beginning: Beginning | None = None
    """At the version that is the base, else none."""

    @property
    def root(self) -> str:
        """One digest of all four."""
        return merkle_root([self.weights, self.moments, self.before, self.feedback])

    @property
    def base(self) -> str | None:
        """Digest of the base that the replica began with; None at other versions."""
        return None if self.beginning is None else merkle_root([self.weights, self.beginning.rest])

    def nonce(self, run: str, epoch: int, hotkey: str) -> str | None:
        """The nonce that the fingerprint must answer; None at versions without one."""
        return None if self.base is None else fingerprint_nonce(run, epoch, self.base, hotkey)


class Receipt(Frozen):
    """The record of one op. `microbatch` and `attempt` are 0 for STEP and COMMIT.

    Of a COMMIT `step` and `version` are the version that it commits to.

    Of a MERGE `stage` is the merged stage, which need not be the miner's, `microbatch` the part; `step`,
    `attempt`, `version` and `tokens` are 0.
    """

    seq: Positive
    """Its number in the miner's chain, from 1."""
    epoch: Small
    step: Small
    microbatch: Small = 0
    attempt: Small = 0
    stage: Small
    kind: OpKind
    version: Small
    """Weight version that the op used."""
    inputs: tuple[SignedHeader, ...] = Field((), max_length=2)
    """The frames that the op read."""
    output: Hex32
    """Digest of the op's output: of the frame's payload, of an EVAL the fp32 nats of each token, of a STEP
    its counted list, of a COMMIT the commitment's root, of a MERGE `merge_output`."""
    loss: float | None = None
    """Mean nats a token, LOSS and EVAL only."""
    tokens: Small = 0
    """Tokens of the microbatch."""
    update: StepUpdate | None = None
    """STEP only."""
    commitment: Commitment | None = None
    """COMMIT only."""
    started: Annotated[float, Field(ge=0)]
    ended: Annotated[float, Field(ge=0)]
    """Unix seconds by the miner's clock."""
    device: Annotated[str, Field(max_length=200)]
    """Device class (`iota.compute.determinism`)."""
    previous: Hex32 = GENESIS
    """Digest of the receipt before this one."""

    @property
    def key(self) -> OpKey:
        """The name of the op among those of its miner."""
        if self.kind is OpKind.MERGE:
            return (self.epoch, self.stage, self.microbatch, self.attempt, self.kind)
        return (self.epoch, self.step, self.microbatch, self.attempt, self.kind)


class ReceiptBatch(Frozen):
    """Consecutive receipts. The signature covers the last digest, and by the chain all receipts before it."""

    receipts: tuple[Receipt, ...] = Field(max_length=MAX_RECEIPTS, fail_fast=True)
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


def signed_payload(run: str, hotkey: str, head: str) -> bytes:
    """The payload of a batch's signature (domain: `RECEIPTS_DOMAIN`). `head` is the last receipt's digest."""
    return f"{run}\n{hotkey}\n{head}".encode()


def counted_digest(counted: Iterable[tuple[int, int]]) -> str:
    """BLAKE3 (hex) of a counted list: its text has a line `counted/1`, then `microbatch attempt` for each.

    Miners, the orchestrator and validators compare lists by this digest.
    """
    lines = [_COUNTED_FORM, *(f"{microbatch} {attempt}" for microbatch, attempt in counted)]
    return blake3("\n".join(lines).encode()).hexdigest()
