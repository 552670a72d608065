"""Loss of a whole model, stage after stage: memory for one stage is enough."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from iota.codec.wire_dtype import encode_wire
from iota.compute.errors import BadValueError
from iota.compute.finite import all_finite
from iota.compute.precision import operand_dtypes
from iota.compute.stage_pass import StagePass
from iota.compute.state import StageState
from iota.compute.tokens import Tokens
from iota.spec import RunSpec

Losses = npt.NDArray[np.float32]


class Evaluation:
    """Batches on their way through a model. Between stages they are kept as on the wire.

    Args:
        batches: tokens as in training, each (sequences, sequence_length + 1).
    """

    def __init__(
        self, spec: RunSpec, batches: Sequence[Tokens], *, device: str | torch.device = "cpu"
    ) -> None:
        if not batches:
            raise ValueError("there is nothing to evaluate: give at least one batch")
        self._spec, self._batches, self._device = spec, batches, torch.device(device)
        self._payloads: list[Tensor | None] = [None] * len(batches)
        self.losses: list[Losses] = []
        """Nats of each token, (sequences, sequence_length) for each batch, after the last stage."""

    def stage(self, stage: int, state: StageState) -> Iterator[int]:
        """Run all batches through the next stage, without gradients. Yields after each batch its number.

        Raises PayloadError or BadValueError.
        """
        stage_pass = StagePass(self._spec, stage, self._device)
        dtypes = operand_dtypes(self._spec, stage)
        weights = {n: w.to(self._device, dtypes.get(n, w.dtype)) for n, w in state.weights.items()}
        for number, tokens in enumerate(self._batches):
            inputs = stage_pass.inputs(self._payloads[number], tokens)
            if stage_pass.last:
                result = stage_pass.token_losses(weights, inputs)
            else:
                result = stage_pass.forward(weights, inputs)
            if not all_finite(result):
                raise BadValueError(f"NaN or Inf in the evaluation of stage {stage}")
            if stage_pass.last:
                self.losses.append(result.cpu().numpy())
            else:
                self._payloads[number] = encode_wire(result, self._spec.boundary.wire)
            yield number

    @property
    def mean(self) -> float:
        """Mean nats per token, after the last stage."""
        return float(np.mean(self.losses, dtype=np.float64))


def evaluate_model(spec: RunSpec, states: Iterable[StageState], batches: Iterable[Tokens]) -> float:
    """Mean loss of a whole model over batches, with one stage in memory at a time.

    Raises ValueError without batches.
    """
    evaluation = Evaluation(spec, list(batches))
    for stage, state in enumerate(states):
        for _ in evaluation.stage(stage, state):
            pass
    return evaluation.mean
