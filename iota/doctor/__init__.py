"""`iota doctor`: facts about a node, and findings with remedies.

`gathering` collects facts from machine, chain and orchestrator; `findings` judges them, without input or
output.
"""

from iota.doctor.facts import Facts
from iota.doctor.finding import Finding, Severity
from iota.doctor.findings import findings
from iota.doctor.gathering import DEADLINE_S, gather

__all__ = ["DEADLINE_S", "Facts", "Finding", "Severity", "findings", "gather"]
