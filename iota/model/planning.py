"""The planner: balanced cuts, and the smallest compression ratio that hides the transfers. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from iota.codec import open_codec
from iota.codec.wire_dtype import token_bytes
from iota.model.layout import stage_flops, stage_memory, stage_parameters
from iota.spec import BoundarySpec, ModelSpec

EXPECTED_UTILIZATION = 0.5
"""Share of a device's peak FLOP/s that plans assume for a stage that never waits for input."""


def balanced_cuts(model: ModelSpec, stages: int, sequence_length: int) -> tuple[int, ...]:
    """Layers of each stage that minimize the cost of the most expensive stage.

    Costs are forward FLOPs per token: 2N + 2·s·d for a layer, 2·V·d for the head, none for the embedding.
    Layers cost the same, so that adding each layer to the cheapest stage is optimal. Raises ValueError for
    less than one stage, or more stages than layers.
    """
    if stages < 1:
        raise ValueError(f"{stages} stages cannot hold a model: give at least 1")
    if stages > model.layers:
        raise ValueError(
            f"{stages} stages need {stages} layers and the model has {model.layers}:"
            f" give at most {model.layers} stages"
        )
    # The first of two stages has one layer and the embedding, which costs nothing.
    layer = stage_flops(model, (1, 1), 0, sequence_length) / 3
    cuts = [1] * stages
    cost = [layer] * stages
    cost[-1] += 2.0 * model.vocab_size * model.hidden_size
    for _ in range(model.layers - stages):
        cheapest = min(range(stages), key=lambda stage: (cost[stage], stage))
        cuts[cheapest] += 1
        cost[cheapest] += layer
    return tuple(cuts)


@dataclass(frozen=True)
class StagePlan:
    """One row of the planner's table."""

    stage: int
    layers: int
    parameters: int
    flops_per_token: int
    """Forward and backward."""
    memory: int
    """Bytes if every graph is kept, at `PlanTable.microbatch_tokens` and `in_flight`."""
    memory_recomputing: int
    """Bytes with `compute.recompute = always`, which keeps one graph at a time."""
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
    seconds_per_token: float
    """Compute time of the most expensive stage."""
    tokens_per_second: float
    """Throughput of one replica of each stage if transfers are hidden."""
    hiding_ratio: int | None
    """The smallest ratio at which transfers take no longer than compute; None if there is none."""
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
    model: ModelSpec,
    stages: int,
    sequence_length: int,
    *,
    boundary: BoundarySpec | None = None,
    link_mbps: float = 100.0,
    device_tflops: float = 100.0,
) -> PlanTable:
    """The content of `iota plan`, for microbatches of one sequence and `stages` + 1 of them in flight.

    Raises ValueError for speeds or lengths that are not positive, or a cut that is impossible.
    """
    codec = boundary or BoundarySpec()
    width = open_codec(codec.codec).width(model, codec)
    if link_mbps <= 0 or device_tflops <= 0 or sequence_length <= 0:
        raise ValueError("link speed, device speed and sequence length must be above zero")
    cuts = balanced_cuts(model, stages, sequence_length)
    in_flight = stages + 1
    flops = [stage_flops(model, cuts, stage, sequence_length, codec) for stage in range(stages)]
    most = max(flops)
    rows = tuple(
        StagePlan(
            stage=stage,
            layers=cuts[stage],
            parameters=parameters,
            flops_per_token=flops[stage],
            memory=stage_memory(model, cuts, stage, codec, tokens=sequence_length, in_flight=in_flight),
            memory_recomputing=stage_memory(model, cuts, stage, codec, tokens=sequence_length, in_flight=1),
            load=flops[stage] / most,
        )
        for stage, parameters in enumerate(stage_parameters(model, cuts, codec))
    )
    seconds = most / (device_tflops * 1e12 * EXPECTED_UTILIZATION)
    return PlanTable(
        model_parameters=sum(stage_parameters(model, cuts)),
        stages=rows,
        ratio=model.hidden_size // width,
        boundary_bytes_per_token=token_bytes(width, codec.wire),
        microbatch_tokens=sequence_length,
        in_flight=in_flight,
        seconds_per_token=seconds,
        tokens_per_second=1 / seconds,
        hiding_ratio=hiding_ratio(model, codec, link_mbps, seconds),
        balance=sum(flops) / (stages * most),
    )
