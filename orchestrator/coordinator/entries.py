"""Journal entries: the coordinator's only inputs, each with its time."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from iota.protocol.bridge import WriteRequest
from iota.protocol.frames import FrameName, FrameNotice, StoredObject
from iota.protocol.merges import LeftOut
from iota.protocol.messages import Hotkey, JoinRequest, Report
from iota.protocol.receipts import Receipt
from iota.protocol.workers import Revocation
from iota.spec import Count, Frozen, Hex32, Small


class EntryKind(StrEnum):
    """Names of entries in the journal."""

    JOINED = "joined"
    EXCHANGED = "exchanged"
    LEFT = "left"
    LOST = "lost"
    RETURNED = "returned"
    TICK = "tick"
    RESUMED = "resumed"
    COPY_READ = "copy_read"
    REMERGED = "remerged"
    BASE_MADE = "base_made"
    STORE_AWAY = "store_away"
    STORE_BACK = "store_back"
    REVOKED = "revoked"
    BRIDGED = "bridged"


class _Timed(Frozen):
    at: float
    """Unix seconds. The recorder makes sure that times never decrease."""


class _OfMember(_Timed):
    hotkey: Hotkey


class Joined(_OfMember):
    """A node joined for the first time, or after a restart."""

    kind: Literal[EntryKind.JOINED] = EntryKind.JOINED
    request: JoinRequest


class Finding(StrEnum):
    """What the server found of a merged part, or of a frame that a member says it cannot use."""

    ABSENT = "absent"
    """The store does not have it any more: it had it when it was announced."""
    OTHER = "other"
    """The store has other bytes than were announced."""
    INVALID = "invalid"
    """The bytes are those that were announced, and no frame of their sender, or another than it receipted."""
    NOT_FINITE = "not_finite"
    """A frame of its sender that holds NaN or Inf."""
    LARGE = "large"
    """A frame of its sender whose values are finite, and larger than those of a model that trains."""
    SOUND = "sound"


class LookedAt(Frozen):
    """A stored frame that the server read because of a report in the same exchange."""

    name: FrameName
    found: Finding


class Exchanged(_OfMember):
    """The new content of one exchange. The intake has verified the receipts' signature and chain.

    Every object that it announces was in the store, with the announced size.
    """

    kind: Literal[EntryKind.EXCHANGED] = EntryKind.EXCHANGED
    receipts: tuple[Receipt, ...] = ()
    frames: tuple[FrameNotice, ...] = ()
    reports: tuple[Report, ...] = ()
    looked: tuple[LookedAt, ...] = ()


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


class CopyRead(_Timed):
    """The orchestrator has read the copy of a merged part on which its mergers agree, before it counts.

    It is sound, absent, or other bytes than its merger signed.
    """

    kind: Literal[EntryKind.COPY_READ] = EntryKind.COPY_READ
    epoch: Small
    stage: Small
    part: Small
    merger: Hotkey
    found: Finding


class Remerged(_Timed):
    """The orchestrator has merged a disputed part itself, and stored the result under a key of its own."""

    kind: Literal[EntryKind.REMERGED] = EntryKind.REMERGED
    epoch: Small
    stage: Small
    part: Small
    stored: StoredObject
    left_out: dict[Hotkey, LeftOut]


class BaseMade(_Timed):
    """The orchestrator has made a base itself, because its stage's replicas do not decide the digest, or do
    not store it."""

    kind: Literal[EntryKind.BASE_MADE] = EntryKind.BASE_MADE
    epoch: Small
    stage: Small
    digest: Hex32
    parts: tuple[StoredObject, ...] = ()
    """As it stored them, under keys of its own; none where the digest alone was wanted."""


class StoreAway(_Timed):
    """The object store does not answer the server: nothing that needs it can be asked of anybody."""

    kind: Literal[EntryKind.STORE_AWAY] = EntryKind.STORE_AWAY


class StoreBack(_Timed):
    """The object store answers again: what it held up gets its time anew."""

    kind: Literal[EntryKind.STORE_BACK] = EntryKind.STORE_BACK


class Revoked(_Timed):
    """An owner revoked one of its workers. The intake has verified its signature."""

    kind: Literal[EntryKind.REVOKED] = EntryKind.REVOKED
    revocation: Revocation


class Bridged(_OfMember):
    """A member or the operator writes shared variables. What comes of it the coordinator decides."""

    kind: Literal[EntryKind.BRIDGED] = EntryKind.BRIDGED
    operator: bool
    """Whether the request was signed by the orchestrator's own key, which is the operator's."""
    write: WriteRequest


Entry = Annotated[
    Joined
    | Exchanged
    | Left
    | Lost
    | Returned
    | Tick
    | Resumed
    | CopyRead
    | Remerged
    | BaseMade
    | StoreAway
    | StoreBack
    | Revoked
    | Bridged,
    Field(discriminator="kind"),
]
