"""One line of what `iota doctor` says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """Works, but not as it should, or not for long."""
    PROBLEM = "problem"
    """The role cannot do its work."""


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    """What was looked at."""
    verdict: Verdict
    found: str
    remedy: str | None = None
    """What to do; there is one unless all is well."""


def well(check: str, found: str) -> Finding:
    return Finding(check, Verdict.OK, found)


def warning(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, Verdict.WARNING, found, remedy)


def problem(check: str, found: str, remedy: str) -> Finding:
    return Finding(check, Verdict.PROBLEM, found, remedy)
