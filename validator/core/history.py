"""Decisions of this validator so far, earlier processes included, so that none is taken twice."""

from __future__ import annotations

from dataclasses import dataclass, field

from iota.protocol.messages import Heldout
from validator.core.op_times import Rates


@dataclass
class History:
    """Read from the database when a membership begins, then updated by the core."""

    audited: set[int] = field(default_factory=set)
    """Epochs with all verdicts filed."""
    filed: set[tuple[int, str, str]] = field(default_factory=set)
    """(epoch, miner, task name) of every filed verdict."""
    owing: set[tuple[int, str]] = field(default_factory=set)
    """(epoch, miner) whose next epoch has a STEP audit for certain (`tasks.is_certain`)."""
    worked: set[int] = field(default_factory=set)
    """Epochs whose work is known."""
    pooled: set[int] = field(default_factory=set)
    """Epochs of which the verdicts of other validators are known."""
    heldout: dict[int, Heldout] = field(default_factory=dict)
    """Report of the held-out loss by epoch of the base."""
    rates: dict[int, Rates] = field(default_factory=dict)
    """By epoch, of the last `audit.window` that this process has audited; in no database."""
