"""One hotkey in the run."""

from __future__ import annotations

from dataclasses import dataclass, field

from iota.protocol.events import Event
from iota.protocol.messages import Capabilities, Direction, Role
from iota.protocol.receipts import GENESIS

PendingKey = tuple[int, int, Direction]
"""(step, microbatch, direction) of an op whose inputs are all there."""


@dataclass
class Member:
    """One hotkey in the run."""

    hotkey: str
    role: Role
    stage: int
    """-1 for a validator."""
    order: int
    capabilities: Capabilities
    addresses: tuple[str, ...] = ()
    """Where it says that others may reach it."""
    live: bool = True
    stalled: bool = False
    """It missed a deadline; nothing is planned for it until it is heard to work again."""
    receipts: int = 0
    head: str = GENESIS
    events: list[tuple[int, Event]] = field(default_factory=list)
    next_seq: int = 1
    cursor_start: int = 0
    """A node that restarts from its disk needs the events after this one."""
    ready_epoch: int = -1
    joined: tuple[int, int] | None = None
    """(epoch, step) from which it takes part."""
    left: bool = False
    told_base: int = -1
    """Newest epoch whose base it was told to load."""
    pending: dict[PendingKey, float] = field(default_factory=dict)
    """Ready ops, with the time since when."""
    last_progress: float = 0.0
    op_seconds: float = 0.0
    """Smoothed seconds from a ready op to its end, as seen from here."""
    tokens: int = 0
    """Tokens of its counted work, all epochs."""
    misloaded: int = -1
    """Newest epoch whose base it held with another digest than its stage."""
    withdrawn: int = 0
    last_step: tuple[int, int] = (-1, -1)
    """(epoch, step) of its newest STEP receipt."""
    resume: bool = False
    """The last join continued from disk."""
