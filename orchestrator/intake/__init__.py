"""Decides on members' requests: refusal or journal entry, and which objects a member may access. Pure.

`Intake` is the entry point, for the HTTP server and for the simulation. `bounds` parses bodies; `owners`
checks certificates and revocations; `receipts` and `validation` check an exchange, and `announced` names the
objects that it says are stored; `rights` and `grants` decide on access to objects.
"""

from orchestrator.intake.announced import all_announced, without
from orchestrator.intake.bounds import parse
from orchestrator.intake.grants import accesses
from orchestrator.intake.intake import Intake
from orchestrator.intake.rights import Access

__all__ = ["Access", "Intake", "accesses", "all_announced", "parse", "without"]
