"""The table of `iota plan`: what each stage needs, and the smallest ratio that hides the transfers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from iota.codec.shapes import boundary_width
from iota.codec.wire_dtype import token_bytes
from iota.model.layout import stage_flops, stage_parameters
from iota.planning.audits import AuditCosts, audit_costs, step_seconds
from iota.planning.fits import Fit, fit
from iota.planning.machine import Machine
from iota.planning.needs import Needs, all_needs
from iota.planning.remedies import remedies
from iota.settings import Activations
from iota.spec import BoundarySpec, ModelSpec, RunSpec

EXPECTED_UTILIZATION = 0.5
"""Share of a device's peak FLOP/s that plans assume for a stage that never waits for input."""

EXPECTED_TFLOPS = 100.0
"""Peak TFLOP/s of a device that nothing was said of."""


@dataclass(frozen=True)
class StagePlan:
    """One row of the planner's table."""

    stage: int
    layers: int
    parameters: int
    flops_per_token: int
    """Forward and backward."""
    memory: int
    """Bytes of the device if every graph is kept."""
    memory_recomputing: int
    """Bytes of the device if the inputs of layers alone are kept."""
    weights: int
    gradients: int
    moments: int
    graphs: int
    """Microbatches in flight, at the most."""
    policy: Activations
    """The activation policy of `graph` and `working`: that of `fit`, else KEEP."""
    graph: int
    """Bytes on the device for a microbatch in flight."""
    working: int
    """Bytes on the device besides, in one pass."""
    fit: Fit | None
    """On a machine of the given memory; None where none was given."""
    remedies: tuple[str, ...]
    """Changes of the spec, each of which would make the stage fit; empty where it does, or none would."""
    disk: int
    """Bytes of a miner's data directory; most of it are the snapshots that audits may ask for."""
    load: float
    """Cost as a share of the most expensive stage's."""


@dataclass(frozen=True)
class PlanTable:
    """The planner's result for one model and one number of stages."""

    model_parameters: int
    """Without codecs."""
    stages: tuple[StagePlan, ...]
    ratio: int
    boundary_bytes_per_token: int
    """In one direction."""
    microbatch_tokens: int
    in_flight: int
    """Microbatches of which the first stage keeps graphs."""
    run_tokens: int
    """Tokens of the whole run."""
    seconds_per_token: float
    """Compute time of the most expensive stage."""
    tokens_per_second: float
    """Throughput of one replica of each stage if transfers are hidden."""
    hiding_ratio: int | None
    """The smallest ratio at which transfers take no longer than compute; None if there is none."""
    audits: AuditCosts
    heldout_tokens: int
    """That the base of an epoch is measured on."""
    heldout_share: float
    """Part of an epoch's compute that this is."""
    balance: float
    """Mean load of the stages: the share of their compute that the pipeline uses."""

    def as_json(self) -> dict[str, Any]:
        """The table as a JSON object with the names of the fields."""
        return asdict(self)


def hiding_ratio(
    model: ModelSpec, boundary: BoundarySpec, link_mbps: float, seconds_per_token: float
) -> int | None:
    """The smallest divisor of d at which the uplink of a middle stage keeps up with its compute.

    A middle stage sends one activation and one gradient for each token.
    """
    d = model.hidden_size
    for ratio in (r for r in range(1, d + 1) if d % r == 0):
        bits = 8 * 2 * token_bytes(d // ratio, boundary.wire)
        if bits / (link_mbps * 1e6) <= seconds_per_token:
            return ratio
    return None


def plan_table(
    spec: RunSpec,
    *,
    link_mbps: float = 100.0,
    device_tflops: float = EXPECTED_TFLOPS,
    compiled: bool = True,
    machine: Machine | None = None,
) -> PlanTable:
    """The content of `iota plan`, on machines like `machine` where one is given.

    Raises ValueError for speeds that are not positive, or an unknown codec.
    """
    if link_mbps <= 0 or device_tflops <= 0:
        raise ValueError("link speed and device speed must be above zero")
    model, cuts, codec = spec.model, spec.layout.cuts, spec.boundary
    width = boundary_width(spec)
    needs = all_needs(spec, compiled=compiled)
    flops = [stage_flops(model, cuts, s, spec.data.sequence_length, codec) for s in range(len(cuts))]
    most = max(flops)
    speed = reached(device_tflops)
    rows = tuple(_row(spec, n, flops[n.stage], flops[n.stage] / most, speed, machine) for n in needs)
    seconds = most / speed
    return PlanTable(
        model_parameters=sum(stage_parameters(model, cuts)),
        stages=rows,
        ratio=model.hidden_size // width,
        boundary_bytes_per_token=token_bytes(width, codec.wire),
        microbatch_tokens=spec.data.tokens,
        in_flight=needs[0].graphs,
        run_tokens=spec.tokens,
        seconds_per_token=seconds,
        tokens_per_second=1 / seconds,
        hiding_ratio=hiding_ratio(model, codec, link_mbps, seconds),
        audits=audit_costs(spec, step_seconds(spec, seconds)),
        heldout_tokens=spec.schedule.heldout * spec.data.tokens,
        heldout_share=spec.heldout_share,
        balance=sum(flops) / (len(cuts) * most),
    )


def reached(device_tflops: float) -> float:
    """FLOP/s that a stage is planned to reach on a device of so many TFLOP/s."""
    return device_tflops * 1e12 * EXPECTED_UTILIZATION


def _row(
    spec: RunSpec, needs: Needs, flops: int, load: float, speed: float, machine: Machine | None
) -> StagePlan:
    found = None if machine is None else fit(spec, needs, machine, speed)
    helping: list[str] = []
    if machine is not None and found is not None and found.policy is None:
        helping = remedies(spec, needs.stage, machine, compiled=needs.compiled)
    policy = Activations.KEEP if found is None else found.under
    return StagePlan(
        stage=needs.stage,
        layers=spec.layout.cuts[needs.stage],
        parameters=needs.parameters,
        flops_per_token=flops,
        memory=needs.memory,
        memory_recomputing=needs.memory_recomputing,
        weights=needs.weights,
        gradients=needs.gradients,
        moments=needs.moments,
        graphs=needs.graphs,
        policy=policy,
        graph=needs.kept[policy].graph,
        working=needs.kept[policy].working,
        fit=found,
        remedies=tuple(helping),
        disk=needs.disk,
        load=load,
    )
