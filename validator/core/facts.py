"""Facts of the validator's core: events of the orchestrator, outcomes of jobs, and time."""

from __future__ import annotations

from dataclasses import dataclass

from iota.protocol.events import Accusation, AuditsClosed, EpochClose, EvidenceMissed, EvidenceReady, RunEnd
from iota.protocol.records import MinerRecord


@dataclass(frozen=True)
class Done:
    """A job has ended with an answer, whose type depends on the job (`jobs.py`)."""

    number: int
    answer: object


@dataclass(frozen=True)
class Failed:
    """A job has ended without an answer. What the core does not expect ends one audit (`containment`)."""

    number: int
    error: Exception


@dataclass(frozen=True)
class Tick:
    """The time of `ValidatorCore.wake_at` has come."""


@dataclass(frozen=True)
class Accused:
    """Another validator accuses a miner. `signed`: it signed the verdict, which counts for nothing else."""

    accusation: Accusation
    signed: bool


Fact = EpochClose | EvidenceReady | EvidenceMissed | Accused | AuditsClosed | RunEnd | Done | Failed | Tick


# ---- why jobs fail, beside the endings of an audit (`results.py`) -------------------------------------


class TransportFailed(Exception):
    """The orchestrator, the store or the data set did not deliver; no miner is at fault."""


class RecordBroken(Exception):
    """An epoch's record contradicts itself, its plans or its receipts, or is not the one that was sealed."""

    def __init__(self, reason: str, miners: tuple[MinerRecord, ...] | None) -> None:
        """`miners` are those of the sealed record; None without it, so that nothing is revealed."""
        super().__init__(reason)
        self.miners = miners


class RecordGone(Exception):
    """The audits of the epoch are closed, and the orchestrator has deleted its record."""


class Expired(Exception):
    """Thrown into an epoch's script: the deadline has passed, or the orchestrator takes no more verdicts."""
