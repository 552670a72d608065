"""Why a write is not taken."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.bridge.variable import Variable


@dataclass(frozen=True)
class Refusal:
    """A write that changes nothing. `reason` is a sentence for its sender."""

    reason: str


@dataclass(frozen=True)
class Conflict(Refusal):
    """A variable is not as the write says: read it, and write again."""

    name: str
    current: Variable | None


class Forbidden(Refusal):
    """The writer has no right to the variable."""


class Unfit(Refusal):
    """The write is beyond the bounds, or not of the variable's type or rule: it would never be taken."""
