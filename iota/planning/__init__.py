"""What a spec needs of machines, and whether a machine has it: one computation for `iota up`, `iota plan`,
`iota doctor` and a miner's start. No torch."""

from iota.model.audit_rates import COMPUTE_BUDGET
from iota.planning.audits import AuditCosts, Rates, audit_costs, segments_until
from iota.planning.machine import Machine, existing, usable_cores
from iota.planning.needs import Needs, all_needs, check_snapshot_bound, stage_needs
from iota.planning.plan import EXPECTED_UTILIZATION, PlanTable, StagePlan, hiding_ratio, plan_table
from iota.planning.shortfalls import shortfalls, stageless

__all__ = [
    "COMPUTE_BUDGET",
    "EXPECTED_UTILIZATION",
    "AuditCosts",
    "Machine",
    "Needs",
    "PlanTable",
    "Rates",
    "StagePlan",
    "all_needs",
    "audit_costs",
    "check_snapshot_bound",
    "existing",
    "hiding_ratio",
    "plan_table",
    "segments_until",
    "shortfalls",
    "stage_needs",
    "stageless",
    "usable_cores",
]
