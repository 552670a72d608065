"""Held-out loss, stage by stage: a machine that fits one stage can evaluate the whole model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch

from iota.codec.errors import PayloadError
from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import decode_wire, encode_wire
from iota.compute.errors import BadValueError
from iota.compute.finite import all_finite
from iota.compute.precision import autocast
from iota.compute.state import StageState
from iota.compute.tokens import Tokens, token_tensors
from iota.model.stage import Stage, run_stage, token_loss
from iota.spec import RunSpec


@dataclass(frozen=True)
class EvaluationBatch:
    """`tokens` as in training; `stage_input` is what the stage before made of them, None at stage 0."""

    tokens: Tokens
    stage_input: bytes | None = None


@dataclass(frozen=True)
class EvaluationOutput:
    payload: bytes | None
    """Stage input for the next stage; None at the last."""
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
    module = Stage(spec, stage)
    module.move_tables(target)
    weights = {name: w.to(target) for name, w in state.weights.items()}
    for batch in batches:
        ids, labels = token_tensors(spec, batch.tokens, target)
        if (batch.stage_input is None) is not module.first:
            raise PayloadError("stage 0 reads tokens and takes no stage input; every other stage needs one")
        received = None
        if batch.stage_input is not None:
            received = decode_wire(batch.stage_input, payload_shape(spec), spec.boundary.wire, target)
        with torch.inference_mode(), autocast(spec.compute, target):
            out = run_stage(module, weights, received, ids).out
            result = token_loss(out, labels) if module.last else out
        if not all_finite(result):
            raise BadValueError(f"NaN or Inf in the evaluation of stage {stage}")
        if module.last:
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
