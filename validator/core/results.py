"""The endings of an audit, and the results that verdicts state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from iota.protocol.messages import Outcome
from iota.protocol.receipts import OpKind
from iota.spec import WireDtype


class EvidenceMissing(Exception):
    """Evidence is gone or is none, and no miner is known to withhold it: unshown."""


class StoreAway(EvidenceMissing):
    """The store gave no answer about evidence: whether it is there is not known. Inconclusive."""


class Undelivered(Exception):
    """The miner under audit owed evidence and did not deliver it by its deadline, whether it is live or gone.

    The deadline is the same for all validators. Who stores other bytes than it announces has not delivered.
    """

    def __init__(self, reason: str, *, revoked: bool = False) -> None:
        """`revoked`: nobody can deliver it, since the miner's owner has revoked its key."""
        super().__init__(reason)
        self.revoked = revoked


class MinerFault(Exception):
    """Something that `hotkey` signed proves a fault without a replay: a fail."""

    def __init__(
        self,
        hotkey: str,
        seq: int,
        reason: str,
        *,
        expected: str = "",
        found: str = "",
        witness: str | None = None,
    ) -> None:
        """`witness`: the miner whose receipts show the fault, where they are not the miner's own."""
        super().__init__(reason)
        self.witness = witness
        self.hotkey, self.seq, self.reason = hotkey, seq, reason
        self.expected, self.found = expected, found


class Quantity(StrEnum):
    """What is compared of an op, or of the state at a segment's end (COMMIT). Each is a distance: 0 is equal.

    Formulas: `validator.audits.distances`.
    """

    ERROR = "error"
    """Relative error of the whole output."""
    COSINE = "cosine"
    """1 minus the cosine between two outputs."""
    TOKEN = "token"
    """Relative error of the output's worst token."""
    LOSS = "loss"
    """Relative error of the loss of a LOSS or EVAL."""
    NORM = "norm"
    """Relative error of a STEP's gradient norm."""
    MOMENTS = "moments"
    """Relative error of all moments of one kind, of the worst kind."""
    MOMENTS_TENSOR = "moments-tensor"
    """Relative error of the moments' worst tensor."""
    ALONG = "along"
    """Error of the weights' change in the direction of the momentum, of the worst tensor."""
    CHANGE = "change"
    """Relative error of the weights' change over the segment."""
    CHANGE_TENSOR = "change-tensor"
    """Relative error of the worst tensor's change over the segment."""


@dataclass(frozen=True)
class Bounds:
    """The largest distance that passes, for each op kind and quantity."""

    values: Mapping[tuple[OpKind, Quantity], float] = field(default_factory=dict)

    def of(self, kind: OpKind, quantity: Quantity) -> float:
        """The bound of a quantity of an op kind; 0, so only what is equal, where none is given.

        An EVAL is computed as the loss of a LOSS is, so it has that one's bound.
        """
        kind = OpKind.LOSS if kind is OpKind.EVAL else kind
        return self.values.get((kind, quantity), 0.0)


@dataclass(frozen=True)
class PayloadForm:
    """How a run's boundary tensors look in a payload."""

    wire: WireDtype
    shape: tuple[int, int, int]
    """(sequences, sequence_length, k)."""


@dataclass(frozen=True)
class Profile:
    """How closely a replay must match: to the bit if `exact`, else within `bounds`."""

    name: str
    """Of at most 200 characters; a verdict states it."""
    exact: bool
    depths: tuple[Bounds, ...] = ()
    """The bounds at depth 1, 2 and so on: how many steps lie between the weights that the replay was given
    and the end of the compared op's step. What lies deeper has the last ones."""
    payloads: PayloadForm | None = None
    """The form of what the ops send; an exact profile compares digests and needs none."""

    def bounds(self, depth: int) -> Bounds:
        """The bounds at a depth of at least 1; those of an exact profile let only what is equal pass."""
        return self.depths[min(depth, len(self.depths)) - 1] if self.depths else Bounds()


@dataclass(frozen=True)
class ReplayMismatch:
    """The first op whose receipt disagrees with its replay."""

    seq: int
    expected: str
    """The value that the replay gives."""
    found: str
    """The value that the receipt states."""
    reason: str


Ending = ReplayMismatch | MinerFault | Undelivered | EvidenceMissing | None
"""How an audit ended; None if everything agreed."""


@dataclass(frozen=True)
class Result:
    """The part of a verdict that an audit decides."""

    outcome: Outcome
    seq: int
    """Of the audited receipt, or of the first that failed."""
    profile: str = ""
    expected: str = ""
    found: str = ""
    reason: str = ""


def result_of(ending: Ending, seq: int, profile: str = "") -> Result:
    """The result of an audit of receipt `seq`. `profile` is the name of the comparisons' tolerance."""
    if ending is None:
        return Result(Outcome.PASS, seq, profile)
    if isinstance(ending, ReplayMismatch):
        return Result(Outcome.FAIL, ending.seq, profile, ending.expected, ending.found, ending.reason)
    if isinstance(ending, MinerFault):
        return Result(Outcome.FAIL, ending.seq, "records", ending.expected, ending.found, ending.reason)
    if isinstance(ending, Undelivered):
        outcome = Outcome.REVOKED if ending.revoked else Outcome.UNDELIVERED
        return Result(outcome, seq, reason=str(ending))
    if isinstance(ending, StoreAway):
        return inconclusive(seq, str(ending))
    return Result(Outcome.UNSHOWN, seq, reason=str(ending))


def inconclusive(seq: int, reason: str) -> Result:
    """The result of an audit that could not be decided, for `reason`."""
    return Result(Outcome.INCONCLUSIVE, seq, reason=reason)
