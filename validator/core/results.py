"""How an audit ends, and the result that its verdict states."""

from __future__ import annotations

from dataclasses import dataclass

from iota.protocol.messages import Outcome


class EvidenceMissing(Exception):
    """Evidence that cannot be had, and that no miner is known to have withheld: inconclusive."""


class MinerGone(Exception):
    """The miner has left with what only it had: inconclusive, and its work of the epoch is not paid."""


class MinerFault(Exception):
    """What `hotkey` signed, or failed to produce, is proof against it without a replay: a fail."""

    def __init__(self, hotkey: str, seq: int, reason: str, *, expected: str = "", found: str = "") -> None:
        super().__init__(reason)
        self.hotkey, self.seq, self.reason = hotkey, seq, reason
        self.expected, self.found = expected, found


@dataclass(frozen=True)
class Profile:
    """How close is equal. `error` is |a-b|/|b|; `cosine` the least allowed. Exact: digests decide."""

    name: str
    exact: bool
    error: float = 0.0
    cosine: float = 1.0


@dataclass(frozen=True)
class ReplayMismatch:
    """The first op whose receipt does not agree with its replay."""

    seq: int
    expected: str
    """The value that the replay gives."""
    found: str
    """The value that the receipt states."""
    reason: str


Ending = ReplayMismatch | MinerFault | MinerGone | EvidenceMissing | None
"""How an audit ended; None where everything agreed."""


@dataclass(frozen=True)
class Result:
    """The part of a verdict that an audit decides."""

    outcome: Outcome
    seq: int
    profile: str = ""
    expected: str = ""
    found: str = ""
    reason: str = ""
    unproven: bool = False
    """Inconclusive for a cause that lies with the miner."""


def result_of(ending: Ending, seq: int, profile: str = "") -> Result:
    """The result of an audit of receipt `seq`; `profile` names the tolerance of its comparisons."""
    if ending is None:
        return Result(Outcome.PASS, seq, profile)
    if isinstance(ending, ReplayMismatch):
        return Result(Outcome.FAIL, ending.seq, profile, ending.expected, ending.found, ending.reason)
    if isinstance(ending, MinerFault):
        return Result(Outcome.FAIL, ending.seq, "records", ending.expected, ending.found, ending.reason)
    return inconclusive(seq, str(ending), unproven=isinstance(ending, MinerGone))


def inconclusive(seq: int, reason: str, *, unproven: bool = False) -> Result:
    """The result of an audit that could not be decided."""
    return Result(Outcome.INCONCLUSIVE, seq, reason=reason, unproven=unproven)
