"""Held-out loss, stage by stage: a machine that fits one stage can evaluate the whole model."""

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
    """`tokens` as in training; `stage_input` is what the stage before made of them, None at stage 0."""

    tokens: Tokens
    stage_input: Tensor | None = None


@dataclass(frozen=True)
class EvaluationOutput:
    payload: Tensor | None
    """Stage input for the next stage, on the device; None at the last."""
    loss: float | None
    """Mean nats a token, at the last stage."""


def evaluate_stage(
    spec: RunSpec,
    stage: int,
    state: StageState,
    batches: Iterable[EvaluationBatch],
    *,
    device: str | torch.device = "cpu",
) -> Iterator[EvaluationOutput]:
    """Pass batches through one stage, with the wire's rounding and without gradients.

    Lazy: an output is made when it is asked for. Raises PayloadError or BadValueError.
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
    """Mean held-out loss over batches, holding one stage at a time."""
    inputs = [EvaluationBatch(tokens) for tokens in batches]
    if not inputs:
        raise ValueError("there is nothing to evaluate: give at least one held-out batch")
    losses: list[float] = []
    for stage, state in enumerate(states):
        outputs = list(evaluate_stage(spec, stage, state, inputs))
        losses = [out.loss for out in outputs if out.loss is not None]
        inputs = [EvaluationBatch(b.tokens, o.payload) for b, o in zip(inputs, outputs, strict=True)]
    return sum(losses) / len(inputs)
