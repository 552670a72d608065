"""The planner's arithmetic: balanced cuts, and the smallest ratio that hides the transfers. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from iota.codec import open_codec
from iota.codec.wire_dtype import token_bytes
from iota.model.layout import stage_flops, stage_memory, stage_parameters
from iota.spec import BoundarySpec, ModelSpec, OptimizerKind, Pipeline

EXPECTED_UTILIZATION = 0.5
"""Share of a device's peak that a well-fed stage reaches; plans are made for it."""


def balanced_cuts(
    model: ModelSpec,
    stages: int,
    sequence_length: int,
    *,
    layer_cost: float | None = None,
    head_cost: float | None = None,
    embedding_cost: float = 0.0,
) -> tuple[int, ...]:
    """Layers of each stage so that the dearest stage is as cheap as it can be.

    Costs are per token in any one unit, measured or, where None, estimated in forward FLOPs: a layer
    2N + 2·s·d, the head 2·V·d, the embedding nothing. Since layers are alike, giving each next layer
    to the stage that stays cheapest is optimal. Raises ValueError with fewer layers than stages.
    """
    if stages < 1:
        raise ValueError(f"{stages} stages cannot hold a model: give at least 1")
    if stages > model.layers:
        raise ValueError(
            f"{stages} stages need {stages} layers and the model has {model.layers}:"
            f" give at most {model.layers} stages"
        )
    one = (1,) * model.layers
    layer = layer_cost
    if layer is None:
        # the first of several stages holds one layer; the embedding beside it costs nothing
        alone = one if model.layers > 1 else (1, 1)
        layer = stage_flops(model, alone, 0, sequence_length) / 3
    head = 2.0 * model.vocab_size * model.hidden_size if head_cost is None else head_cost
    cuts = [1] * stages
    cost = [layer] * stages
    cost[0] += embedding_cost
    cost[-1] += head
    for _ in range(model.layers - stages):
        cheapest = min(range(stages), key=lambda stage: (cost[stage], stage))
        cuts[cheapest] += 1
        cost[cheapest] += layer
    return tuple(cuts)


@dataclass(frozen=True)
class StagePlan:
    stage: int
    layers: int
    parameters: int
    flops_per_token: int
    """Forward and backward."""
    memory: int
    """Bytes with every graph kept, at `PlanTable.microbatch_tokens` and `in_flight`."""
    memory_recomputing: int
    """Bytes with `compute.recompute = always`: one graph at a time."""
    load: float
    """Cost as a share of the dearest stage's."""


@dataclass(frozen=True)
class PlanTable:
    model_parameters: int
    """Without codecs."""
    stages: tuple[StagePlan, ...]
    ratio: int
    boundary_bytes_per_token: int
    """What crosses one boundary in one direction."""
    microbatch_tokens: int
    in_flight: int
    seconds_per_token: float
    """Compute of the dearest stage."""
    tokens_per_second: float
    """Of one chain of stages, when transfers are hidden."""
    hiding_ratio: int | None
    """The smallest ratio whose transfers fit behind the compute; None if not even d does."""
    balance: float
    """Mean load over the dearest: the share of compute that an even pipeline could use."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def hiding_ratio(
    model: ModelSpec, boundary: BoundarySpec, link_mbps: float, seconds_per_token: float
) -> int | None:
    """The smallest divisor of d at which a middle stage's uplink keeps up with its compute.

    A middle stage sends one activation down and one gradient up for each token.
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
    microbatch_tokens: int | None = None,
    in_flight: int | None = None,
    optimizer: OptimizerKind = OptimizerKind.ADAMW,
    pipeline: Pipeline = Pipeline.DELAYED,
) -> PlanTable:
    """Everything `iota plan` shows; raises ValueError for a plan that cannot be."""
    codec = boundary or BoundarySpec()
    width = open_codec(codec.codec).width(model, codec)
    if link_mbps <= 0 or device_tflops <= 0 or sequence_length <= 0:
        raise ValueError("link speed, device speed and sequence length must be above zero")
    cuts = balanced_cuts(model, stages, sequence_length)
    tokens = microbatch_tokens or sequence_length
    flying = in_flight or stages + 1
    flops = [stage_flops(model, cuts, stage, sequence_length, codec) for stage in range(stages)]
    dearest = max(flops)
    memory = [
        tuple(
            stage_memory(
                model,
                cuts,
                stage,
                microbatch_tokens=tokens,
                in_flight=graphs,
                boundary=codec,
                optimizer=optimizer,
                pipeline=pipeline,
                value_bytes=2,
            ).total
            for graphs in (flying, 1)
        )
        for stage in range(stages)
    ]
    rows = tuple(
        StagePlan(
            stage=stage,
            layers=cuts[stage],
            parameters=parameters,
            flops_per_token=flops[stage],
            memory=memory[stage][0],
            memory_recomputing=memory[stage][1],
            load=flops[stage] / dearest,
        )
        for stage, parameters in enumerate(stage_parameters(model, cuts, codec))
    )
    seconds = dearest / (device_tflops * 1e12 * EXPECTED_UTILIZATION)
    return PlanTable(
        model_parameters=sum(stage_parameters(model, cuts)),
        stages=rows,
        ratio=model.hidden_size // width,
        boundary_bytes_per_token=token_bytes(width, codec.wire),
        microbatch_tokens=tokens,
        in_flight=flying,
        seconds_per_token=seconds,
        tokens_per_second=1 / seconds,
        hiding_ratio=hiding_ratio(model, codec, link_mbps, seconds),
        balance=sum(flops) / (stages * dearest),
    )
