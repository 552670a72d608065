"""Effects of the validator's core: what its shell does, in the order given."""

from __future__ import annotations

from dataclasses import dataclass

from iota.protocol.messages import Report
from validator.core.jobs import Job
from validator.core.results import Result
from validator.core.scoring import MinerWork
from validator.core.tasks import AuditTask


@dataclass(frozen=True)
class Start:
    """Begin a job. One runs at a time; its answer carries the number."""

    number: int
    job: Job


@dataclass(frozen=True)
class Stop:
    """Cancel the job that runs."""


@dataclass(frozen=True)
class Say:
    """Report to the orchestrator."""

    report: Report


@dataclass(frozen=True)
class FileVerdict:
    """Sign a verdict, keep it, and report the one that is kept under its name."""

    epoch: int
    miner: str
    task: AuditTask
    result: Result


@dataclass(frozen=True)
class RepeatVerdicts:
    """Report again the verdicts that are kept of an epoch."""

    epoch: int


@dataclass(frozen=True)
class KeepWork:
    work: list[MinerWork]


@dataclass(frozen=True)
class KeepHeldout:
    """Remember the held-out loss (nats a token) of the base of `epoch`."""

    epoch: int
    loss: float


@dataclass(frozen=True)
class KeepAudited:
    """Remember that every verdict of the epoch is filed."""

    epoch: int


@dataclass(frozen=True)
class Explain:
    """Write down the scores and their reasons."""


@dataclass(frozen=True)
class Log:
    text: str
    error: bool = False
    """An error; else a warning."""


@dataclass(frozen=True)
class End:
    """The run is over: set the last weights and leave."""


Effect = (
    Start | Stop | Say | FileVerdict | RepeatVerdicts | KeepWork | KeepHeldout | KeepAudited | Explain | Log
    | End
)  # fmt: skip
