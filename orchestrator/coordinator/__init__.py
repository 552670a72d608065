"""The coordinator: a pure state machine that plans and records a run.

Journal entries go in through `Coordinator.apply`; events for nodes come out.
"""

from orchestrator.coordinator.bases import BaseInputs
from orchestrator.coordinator.coordinator import Coordinator
from orchestrator.coordinator.entries import (
    BaseMade,
    Bridged,
    CopyRead,
    Entry,
    Exchanged,
    Finding,
    Joined,
    Left,
    LookedAt,
    Lost,
    Remerged,
    Resumed,
    Returned,
    Revoked,
    StoreAway,
    StoreBack,
    Tick,
)
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.merge_parts import UnreadCopy
from orchestrator.coordinator.state import Limits

__all__ = [
    "BaseInputs",
    "BaseMade",
    "Bridged",
    "Coordinator",
    "CopyRead",
    "Entry",
    "Exchanged",
    "Finding",
    "Joined",
    "Left",
    "Limits",
    "LookedAt",
    "Lost",
    "Member",
    "Remerged",
    "Resumed",
    "Returned",
    "Revoked",
    "StoreAway",
    "StoreBack",
    "Tick",
    "UnreadCopy",
]
