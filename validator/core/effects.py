"""Effects of the validator's core. The shell performs them in the order given."""

from __future__ import annotations

from dataclasses import dataclass

from iota.protocol.heldout import BaseLoss
from iota.protocol.messages import Report
from validator.core.jobs import Job
from validator.core.pool import Pool
from validator.core.results import Result
from validator.core.scoring import MinerWork
from validator.core.tasks import AuditTask


@dataclass(frozen=True)
class Start:
    """Begin a job. One runs at a time, and its answer carries the number."""

    number: int
    job: Job


@dataclass(frozen=True)
class Stop:
    """Cancel the running job."""


@dataclass(frozen=True)
class Say:
    """Report to the orchestrator."""

    report: Report


@dataclass(frozen=True)
class FileVerdict:
    """Sign a verdict, keep it, and report the verdict that stands under its name."""

    epoch: int
    miner: str
    task: AuditTask
    result: Result
    """The miner whose audit proved the fault, if it is another one."""


@dataclass(frozen=True)
class RepeatVerdicts:
    """Report all kept verdicts of an epoch again."""

    epoch: int


@dataclass(frozen=True)
class KeepWork:
    """Record the miners' work in an epoch, which their scores are made of."""

    work: list[MinerWork]


@dataclass(frozen=True)
class KeepDraw:
    """Record what the draws of an epoch follow from: the hash of block B in hex."""

    epoch: int
    block_hash: str


@dataclass(frozen=True)
class KeepPool:
    """Record what other validators published of an epoch; None where it was not to be had."""

    epoch: int
    pool: Pool | None


@dataclass(frozen=True)
class Measured:
    """Log the held-out loss of the base of `epoch`."""

    epoch: int
    found: BaseLoss


@dataclass(frozen=True)
class KeepAudited:
    """Record that every verdict of the epoch is filed."""

    epoch: int


@dataclass(frozen=True)
class Explain:
    """Write the scores and their reasons to `scores.json`."""


@dataclass(frozen=True)
class Log:
    """Log a line as a warning, or as an error."""

    text: str
    error: bool = False


@dataclass(frozen=True)
class InternalError:
    """Log an error of this program with its traceback, and count it. `what` names the audit that it ended."""

    epoch: int
    what: str
    error: Exception


@dataclass(frozen=True)
class End:
    """The run and all audits are over: set the last weights and exit."""


Effect = (
    Start | Stop | Say | FileVerdict | RepeatVerdicts | KeepWork | KeepDraw | KeepPool | Measured
    | KeepAudited | Explain | Log | InternalError | End
)  # fmt: skip
