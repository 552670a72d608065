"""The coordinator: a pure state machine that plans and records a run.

Journal entries go in through `Coordinator.apply`; events for nodes come out.
"""

from orchestrator.coordinator.coordinator import Coordinator
from orchestrator.coordinator.entries import Back, Entry, Joined, Left, Lost, Resumed, Said, Tick
from orchestrator.coordinator.member import Member
from orchestrator.coordinator.state import Limits

__all__ = [
    "Back",
    "Coordinator",
    "Entry",
    "Joined",
    "Left",
    "Limits",
    "Lost",
    "Member",
    "Resumed",
    "Said",
    "Tick",
]
