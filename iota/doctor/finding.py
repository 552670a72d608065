"""Findings: the lines of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    """The role works, but with a fault, or not for long."""
    PROBLEM = "problem"
    """The role cannot do its work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    """Name of the check, such as `chain latency`."""
    verdict: Severity
    found: str
    remedy: str | None = None
    """What to do; None only with `OK`."""


def ok(check: str, found: str) -> Finding:
    """The finding of a check that found no fault."""
    return Finding(check, Severity.OK, found)


def warning(check: str, found: str, remedy: str) -> Finding:
    """A fault that the role can work with for now."""
    return Finding(check, Severity.WARNING, found, remedy)


def problem(check: str, found: str, remedy: str) -> Finding:
    """A fault that the role cannot work with."""
    return Finding(check, Severity.PROBLEM, found, remedy)
