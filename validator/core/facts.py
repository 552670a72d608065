"""Facts that the validator's core learns: events of the orchestrator, how jobs ended, and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from iota.protocol.events import AuditsClosed, EpochClose, RunEnd, SnapshotReady
from iota.protocol.records import MinerRecord
from validator.core.results import EvidenceMissing, MinerFault


@dataclass(frozen=True)
class Done:
    """A job has ended with an answer; its type is the job's (`jobs.py`)."""

    number: int
    answer: object


@dataclass(frozen=True)
class Failed:
    """A job has ended without an answer."""

    number: int
    error: Exception


@dataclass(frozen=True)
class Tick:
    """The time that the core asked to be woken at has come."""


Fact = EpochClose | SnapshotReady | AuditsClosed | RunEnd | Done | Failed | Tick


# ---- why jobs fail, beside the endings of an audit (`results.py`) -------------------------------------


class TransportFailed(Exception):
    """The orchestrator, the store or the data did not give what the job needs."""


class RecordBroken(Exception):
    """An epoch's record does not hold together, or is not the orchestrator's."""

    def __init__(self, reason: str, miners: tuple[MinerRecord, ...] | None) -> None:
        """`miners` are those of the epoch; None where nothing names them."""
        super().__init__(reason)
        self.miners = miners


class RecordGone(Exception):
    """The audits of the epoch are closed, and its record is forgotten."""


FAILURES: Final = (TransportFailed, RecordBroken, RecordGone, EvidenceMissing, MinerFault)


class Expired(Exception):
    """The deadline has passed, or the orchestrator takes no more verdicts of the epoch."""
