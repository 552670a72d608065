"""Public records of one epoch: what a validator replays and scores from."""

from __future__ import annotations

from iota.protocol.events import EpochClose, MergeAssign, MergeReady, Plan, Reroute
from iota.protocol.messages import Hotkey, StoredObject
from iota.spec import Count, Frozen, Small


class CountedList(Frozen):
    """A(t, s, r) of one replica, in the order of its sum."""

    step: Small
    miner: Hotkey
    counted: tuple[tuple[Small, Small], ...]
    """(microbatch, attempt)"""


class BaseRecord(Frozen):
    epoch: Small
    stage: Small
    digest: str
    parts: tuple[StoredObject, ...]


class DeltaRecord(Frozen):
    miner: Hotkey
    stage: Small
    tokens: Count
    parts: tuple[StoredObject, ...]


class MinerRecord(Frozen):
    hotkey: Hotkey
    stage: Small
    joined: Small
    """Step of this epoch at which its version was the base."""
    first_receipt: Count
    last_receipt: Count
    """Receipts of this epoch are those with first_receipt <= seq <= last_receipt; (1, 0) when none."""
    withdrawn: Count
    """Microbatches taken from it because it was late or lost."""


class EpochRecord(Frozen):
    epoch: Small
    seal: EpochClose
    miners: tuple[MinerRecord, ...]
    plans: tuple[Plan, ...]
    reroutes: tuple[Reroute, ...]
    counted: tuple[CountedList, ...]
    bases: tuple[BaseRecord, ...]
    deltas: tuple[DeltaRecord, ...]
    merge_assigns: tuple[MergeAssign, ...]
    merges: tuple[MergeReady, ...]
