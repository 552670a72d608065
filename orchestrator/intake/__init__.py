"""Decisions on members' requests: refusals, journal entries, and the objects that each may touch. Pure.

`Intake` is the one way in, for the HTTP server and for a simulated swarm alike. `bounds` parses bodies,
`receipts`, `validation` and `repeats` check news, `rights` and `grants` decide on objects.
"""

from orchestrator.intake.bounds import parse
from orchestrator.intake.grants import accesses
from orchestrator.intake.intake import Intake
from orchestrator.intake.rights import Access

__all__ = ["Access", "Intake", "accesses", "parse"]
