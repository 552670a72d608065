"""Journal entries: the only things that change the coordinator's state, each with its time."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from iota.protocol.messages import FrameNotice, Hotkey, JoinRequest, Report
from iota.protocol.receipts import Receipt
from iota.spec import Count, Frozen


class EntryKind(StrEnum):
    """Names of entries in the journal."""

    JOINED = "joined"
    SAID = "said"
    LEFT = "left"
    LOST = "lost"
    BACK = "back"
    TICK = "tick"
    RESUMED = "resumed"


class Joined(Frozen):
    """A node has joined, or has started again."""

    kind: Literal[EntryKind.JOINED] = EntryKind.JOINED
    at: float
    hotkey: Hotkey
    request: JoinRequest


class Said(Frozen):
    """News of one exchange. Receipts stand here already checked for signature."""

    kind: Literal[EntryKind.SAID] = EntryKind.SAID
    at: float
    hotkey: Hotkey
    receipts: tuple[Receipt, ...] = ()
    frames: tuple[FrameNotice, ...] = ()
    reports: tuple[Report, ...] = ()


class Left(Frozen):
    """A node has left for good."""

    kind: Literal[EntryKind.LEFT] = EntryKind.LEFT
    at: float
    hotkey: Hotkey


class Lost(Frozen):
    """The node has been silent past its deadline."""

    kind: Literal[EntryKind.LOST] = EntryKind.LOST
    at: float
    hotkey: Hotkey


class Back(Frozen):
    """A lost node was heard again."""

    kind: Literal[EntryKind.BACK] = EntryKind.BACK
    at: float
    hotkey: Hotkey


class Tick(Frozen):
    """A deadline passed, or the chain has a new head."""

    kind: Literal[EntryKind.TICK] = EntryKind.TICK
    at: float
    block: Count
    block_hash: str


class Resumed(Frozen):
    """The orchestrator started again: time that it was away counts against nobody."""

    kind: Literal[EntryKind.RESUMED] = EntryKind.RESUMED
    at: float


Entry = Annotated[
    Joined | Said | Left | Lost | Back | Tick | Resumed,
    Field(discriminator="kind"),
]
