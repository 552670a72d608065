"""What a spec needs of machines, and whether a machine has it: one computation for `iota up`, `iota plan`,
`iota doctor` and a miner's start. No torch."""

from iota.model.audit_rates import COMPUTE_BUDGET
from iota.planning.audits import AuditCosts, Rates, audit_costs, segments_until
from iota.planning.fits import HOST_LINK, Fit, fit
from iota.planning.fitted import fitted_spec
from iota.planning.machine import Machine, existing, usable_cores
from iota.planning.needs import Needs, all_needs, check_snapshot_bound, stage_needs
from iota.planning.plan import (
    EXPECTED_TFLOPS,
    EXPECTED_UTILIZATION,
    PlanTable,
    StagePlan,
    hiding_ratio,
    plan_table,
    reached,
)
from iota.planning.remedies import remedies
from iota.planning.shortfalls import or_list, shortfalls, stage_shortfalls, stageless

__all__ = [
    "COMPUTE_BUDGET",
    "EXPECTED_TFLOPS",
    "EXPECTED_UTILIZATION",
    "HOST_LINK",
    "AuditCosts",
    "Fit",
    "Machine",
    "Needs",
    "PlanTable",
    "Rates",
    "StagePlan",
    "all_needs",
    "audit_costs",
    "check_snapshot_bound",
    "existing",
    "fit",
    "fitted_spec",
    "hiding_ratio",
    "or_list",
    "plan_table",
    "reached",
    "remedies",
    "segments_until",
    "shortfalls",
    "stage_needs",
    "stage_shortfalls",
    "stageless",
    "usable_cores",
]
