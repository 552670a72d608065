"""Held-out loss, computed stage by stage: memory for one stage is enough to evaluate the whole model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from iota.codec.wire_dtype import encode_wire
from iota.compute.errors import BadValueError
from iota.compute.finite import all_finite
from iota.compute.stage_pass import StagePass
from iota.compute.state import StageState
from iota.compute.tokens import Tokens
from iota.spec import RunSpec


@dataclass(frozen=True)
class EvaluationBatch:
    """Input of one stage: `tokens` as in training, and the previous stage's payload (None at stage 0)."""

    tokens: Tokens
    stage_input: Tensor | None = None


@dataclass(frozen=True)
class EvaluationOutput:
    """Result of one stage for one batch."""

    payload: Tensor | None
    """Input of the next stage, on the device; None at the last stage."""
    loss: float | None
    """Mean nats per token at the last stage, else None."""


def evaluate_stage(
    spec: RunSpec,
    stage: int,
    state: StageState,
    batches: Iterable[EvaluationBatch],
    *,
    device: str | torch.device = "cpu",
) -> Iterator[EvaluationOutput]:
    """Run batches through one stage without gradients, with outputs rounded to the wire.

    Outputs are computed one at a time, as the caller iterates. Raises PayloadError or BadValueError.
    """
    target = torch.device(device)
    stage_pass = StagePass(spec, stage, target)
    weights = {name: w.to(target) for name, w in state.weights.items()}
    for batch in batches:
        inputs = stage_pass.inputs(batch.stage_input, batch.tokens)
        result = stage_pass.run(weights, inputs, keep=False).out
        if not all_finite(result):
            raise BadValueError(f"NaN or Inf in the evaluation of stage {stage}")
        if stage_pass.last:
            yield EvaluationOutput(None, float(result))
        else:
            yield EvaluationOutput(encode_wire(result, spec.boundary.wire), None)


def evaluate_model(spec: RunSpec, states: Iterable[StageState], batches: Iterable[Tokens]) -> float:
    """Mean loss of a whole model over batches, with one stage in memory at a time.

    Raises ValueError without batches.
    """
    inputs = [EvaluationBatch(tokens) for tokens in batches]
    if not inputs:
        raise ValueError("there is nothing to evaluate: give at least one held-out batch")
    losses: list[float] = []
    for stage, state in enumerate(states):
        outputs = list(evaluate_stage(spec, stage, state, inputs))
        losses = [out.loss for out in outputs if out.loss is not None]
        inputs = [EvaluationBatch(b.tokens, o.payload) for b, o in zip(inputs, outputs, strict=True)]
    return sum(losses) / len(inputs)
