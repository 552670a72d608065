"""Journal entries: the coordinator's only inputs, each with its time."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from iota.protocol.messages import FrameNotice, Hotkey, JoinRequest, Report
from iota.protocol.receipts import Receipt
from iota.protocol.workers import Revocation
from iota.spec import Count, Frozen


class EntryKind(StrEnum):
    """Names of entries in the journal."""

    JOINED = "joined"
    EXCHANGED = "exchanged"
    LEFT = "left"
    LOST = "lost"
    RETURNED = "returned"
    TICK = "tick"
    RESUMED = "resumed"
    REVOKED = "revoked"


class _Timed(Frozen):
    at: float
    """Unix seconds. The recorder makes sure that times never decrease."""


class _OfMember(_Timed):
    hotkey: Hotkey


class Joined(_OfMember):
    """A node joined for the first time, or after a restart."""

    kind: Literal[EntryKind.JOINED] = EntryKind.JOINED
    request: JoinRequest


class Exchanged(_OfMember):
    """The new content of one exchange. The intake has verified the receipts' signature and chain."""

    kind: Literal[EntryKind.EXCHANGED] = EntryKind.EXCHANGED
    receipts: tuple[Receipt, ...] = ()
    frames: tuple[FrameNotice, ...] = ()
    reports: tuple[Report, ...] = ()


class Left(_OfMember):
    """A node left the run by its own request."""

    kind: Literal[EntryKind.LEFT] = EntryKind.LEFT


class Lost(_OfMember):
    """A node sent no request for longer than the silence limit."""

    kind: Literal[EntryKind.LOST] = EntryKind.LOST


class Returned(_OfMember):
    """A lost node sent a request again."""

    kind: Literal[EntryKind.RETURNED] = EntryKind.RETURNED


class Tick(_Timed):
    """A deadline passed, or the chain has a new head."""

    kind: Literal[EntryKind.TICK] = EntryKind.TICK
    block: Count
    block_hash: str


class Resumed(_Timed):
    """The orchestrator restarted: running deadlines start again, so that its downtime delays no member."""

    kind: Literal[EntryKind.RESUMED] = EntryKind.RESUMED


class Revoked(_Timed):
    """An owner revoked one of its workers. The intake has verified its signature."""

    kind: Literal[EntryKind.REVOKED] = EntryKind.REVOKED
    revocation: Revocation


Entry = Annotated[
    Joined | Exchanged | Left | Lost | Returned | Tick | Resumed | Revoked, Field(discriminator="kind")
]
