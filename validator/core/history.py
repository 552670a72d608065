"""Decisions of this validator so far, earlier processes included, so that none is taken twice."""

from __future__ import annotations

from dataclasses import dataclass, field

from iota.spec import RunSpec
from validator.core.epoch_before import EpochBefore
from validator.core.op_times import Rates
from validator.core.segments import Drawable, window_start


@dataclass
class History:
    """Read from the database when a membership begins, then updated by the core."""

    audited: set[int] = field(default_factory=set)
    """Epochs with all verdicts filed."""
    filed: set[tuple[int, str, str]] = field(default_factory=set)
    """(epoch, miner, task name) of every filed verdict."""
    owing: set[tuple[int, str]] = field(default_factory=set)
    """(epoch, miner) whose next epoch has a segment audited for certain (`segments.is_certain`)."""
    worked: set[int] = field(default_factory=set)
    """Epochs whose work is known."""
    drawable: dict[int, Drawable] = field(default_factory=dict)
    """What the public draws follow from of those epochs of the newest window whose work is known."""
    pooled: set[int] = field(default_factory=set)
    """Epochs of which the verdicts of other validators are known."""
    ended: dict[int, EpochBefore] = field(default_factory=dict)
    """Of the newest epoch whose record this process has read: what the one after it may begin with."""
    rates: dict[int, Rates] = field(default_factory=dict)
    """By epoch, of the last `audit.window` that this process has audited; in no database."""

    def keep_work(self, spec: RunSpec, epoch: int, drawable: Drawable) -> None:
        """Note an epoch's work and what its public draw follows from. What no later draw needs is dropped."""
        self.worked.add(epoch)
        self.drawable[epoch] = drawable
        first = window_start(spec, max(self.drawable))
        self.drawable = {number: kept for number, kept in self.drawable.items() if number >= first}
