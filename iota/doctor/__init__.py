"""Facts about a node, and findings with remedies: `iota doctor`.

`gathering` asks machine, chain and orchestrator for facts; `findings` judges them, and asks nobody.
"""

from iota.doctor.facts import Facts
from iota.doctor.finding import Finding, Severity
from iota.doctor.findings import findings
from iota.doctor.gathering import DEADLINE_S, gather

__all__ = ["DEADLINE_S", "Facts", "Finding", "Severity", "findings", "gather"]
