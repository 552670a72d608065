"""What a check of an object store found: a line for each thing that a run needs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

CHECK_FOLDER: Final = "iota-store-check"
"""Folder, below the store's prefix, of the objects that a check makes and deletes."""


class State(StrEnum):
    """Whether a store does one thing."""

    WORKS = "works"
    MISSING = "missing"
    """There is another way, or the run goes on with less."""
    FATAL = "fatal"
    """A run cannot work with this store."""


@dataclass(frozen=True)
class Check:
    """One thing that was tried: what was `found`, and what `follows` for a run ("" if nothing)."""

    name: str
    state: State
    found: str
    follows: str = ""

    @property
    def consequence(self) -> str:
        """What follows, as the end of a line; nothing where nothing does."""
        return f" -> {self.follows}" if self.follows else ""

    def __str__(self) -> str:
        """One line."""
        return f"{self.state:8} {self.name:22} {self.found}{self.consequence}"


def usable(checks: tuple[Check, ...]) -> bool:
    """Whether a run can work with the store."""
    return all(check.state is not State.FATAL for check in checks)
