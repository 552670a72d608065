"""What the orchestrator has on record about one member: the answer of `GET /v1/members/HOTKEY`.

Everything is bounded: the newest `EPOCHS_KEPT` epochs, and the newest `RECENT_KEPT` verdicts, weights and
incidents, and the first incident. Totals are over the whole run.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from iota.protocol.messages import AuditKind, Hotkey, Outcome, Role, Seconds
from iota.protocol.workers import Certificate, Revocation
from iota.spec import Count, Fraction, Frozen, Hex32, Small

EPOCHS_KEPT: Final = 64
"""Epochs of work of one member: with 3,000 members about 50 MB."""
RECENT_KEPT: Final = 32
"""Verdicts, weights and incidents of one member, each."""
_Text = Annotated[str, Field(max_length=600)]


class MemberState(StrEnum):
    """What a member does now."""

    WORKING = "working"
    IDLE = "idle"
    LOADING = "loading"
    LATE = "late"
    LOST = "lost"
    LEFT = "left"


class Withdrawal(StrEnum):
    """Why microbatches were taken from a miner."""

    LATE = "late"
    """One of its ops missed its deadline."""
    ABSENT = "absent"
    """It was silent, left, was revoked, or began anew without its state."""
    WORD = "word"
    """It said that a frame cannot be used, or that its op gives NaN or Inf, and the frames are right."""
    FRAME = "frame"
    """Its own frame was other than it announced, none at all, or held NaN or Inf."""


WITHDRAWN_BECAUSE: Final = {
    Withdrawal.LATE: "it was late",
    Withdrawal.ABSENT: "it was away or began anew",
    Withdrawal.WORD: "its word against frames was not so",
    Withdrawal.FRAME: "its own frames were wrong",
}
"""Each reason for a person."""


class EpochWork(Frozen):
    """A member's work in one epoch."""

    epoch: Small
    stage: Annotated[int, Field(ge=-1, lt=2**31)]
    forward: Count
    backward: Count
    """Backwards; at the last stage LOSS ops, which are both."""
    steps: Count
    tokens: Count
    """Tokens of its microbatches that count."""
    stage_tokens: Count
    """Tokens that count at its stage, of all replicas."""
    met: Count
    """Ops that were receipted after their inputs were there."""
    missed: Count
    """Deadlines that passed while it had a ready op."""
    withdrawn: Count
    """Microbatches that were taken from it through its own doing, for any reason of `Withdrawal`."""


class AuditResult(Frozen):
    """One verdict on the member."""

    validator: Hotkey
    epoch: Small
    audit: AuditKind
    outcome: Outcome
    reason: _Text = ""


class Charge(AuditResult):
    """A verdict that costs `miner` its open work, and may ban its owner. That miner's record says why."""

    miner: Hotkey


class EpochAudits(Frozen):
    """A validator's audits of one epoch. Each drawn one is filed once, so all are counted when it is done."""

    epoch: Small
    passed: Count
    failed: Count
    undelivered: Count
    inconclusive: Count
    done: bool
    """It has said that all its verdicts of the epoch are filed."""


class PostedWeights(Frozen):
    """The newest weights that a validator reported as set on the chain."""

    epoch: Small
    """The epoch in training when the report came."""
    block: Count
    miners: Count
    compute_share: Annotated[float, Field(ge=0)]
    """Share of its machine's compute that it used."""


class PostedWeight(Frozen):
    """The member's weight as a validator reported it; 0 where a later report leaves the member out."""

    validator: Hotkey
    epoch: Small
    """The epoch in training when the report came."""
    block: Count
    weight: Fraction


class Incident(Frozen):
    """Something that happened to the member, or that it did."""

    at: Seconds
    """Unix time."""
    epoch: Small
    text: _Text


class MemberRecord(Frozen):
    """The answer: see the module."""

    run: Hex32
    hotkey: Hotkey
    owner: Hotkey
    """The hotkey that is paid for its work: its own, unless it is a worker with a certificate."""
    certificate: Certificate | None = None
    revocation: Revocation | None = None
    """Its owner's, after which it is refused for the rest of the run."""
    role: Role
    stage: Annotated[int, Field(ge=-1, lt=2**31)]
    device: _Text
    state: MemberState
    why: _Text
    """Why it is in that state, in a sentence."""
    until: _Text
    """What ends the state; empty while it works."""
    epoch: Small
    """The epoch in training."""
    window: Small
    """Epochs that a score looks back on, and that a first failed audit bans for (`spec.audit.window`)."""
    tokens: Count
    receipts: Count
    withdrawn: Count
    withdrawals: dict[Withdrawal, Count] = Field(default_factory=dict)
    """Those of the whole run by reason."""
    epochs: tuple[EpochWork, ...] = Field(max_length=EPOCHS_KEPT)
    """Oldest first; so are the others."""
    audits: dict[AuditKind, dict[Outcome, Count]]
    """Verdicts of the whole run: on a miner, or by a validator."""
    verdicts: tuple[AuditResult, ...] = Field(max_length=RECENT_KEPT)
    failed: tuple[AuditResult, ...] = Field(max_length=RECENT_KEPT)
    """The newest failed verdicts."""
    charged: tuple[Charge, ...] = Field(default=(), max_length=RECENT_KEPT)
    """The newest failed and undelivered verdicts on any miner of its owner. Bans of the owner follow."""
    settling: tuple[AuditResult, ...] = Field(default=(), max_length=RECENT_KEPT)
    """The newest verdicts that vest or void work: those on segments, fails, and undelivered ones."""
    weights: tuple[PostedWeight, ...] = Field(max_length=RECENT_KEPT)
    incidents: tuple[Incident, ...] = Field(max_length=RECENT_KEPT)
    judged: tuple[EpochAudits, ...] = Field(default=(), max_length=EPOCHS_KEPT)
    """Of a validator, in the order of its first words on each epoch."""
    posted: PostedWeights | None = None
    heard: Seconds | None = None
    """Unix time of its last request to this orchestrator process."""
    says: str = ""
    """What it last said of itself; unchecked."""
