"""One stage on one device: checks an op's inputs, and runs the module on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from iota.codec.errors import PayloadError
from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import decode_wire
from iota.compute.errors import BadValueError
from iota.compute.finite import all_finite
from iota.compute.precision import autocast
from iota.compute.tokens import Tokens, token_tensors
from iota.model.stage import Stage, run_stage, token_loss, token_losses
from iota.spec import RunSpec


@dataclass(frozen=True)
class StageInputs:
    """Checked inputs of an op, on the device."""

    ids_BT: Tensor
    labels_BT: Tensor
    received_BTK: Tensor | None
    """The decoded stage input; None at stage 0."""


@dataclass(frozen=True)
class Graph:
    """The two ends of a forward pass, and by autograd the graph between them."""

    entry: Tensor
    """Where the previous stage's gradient is taken: the received tensor, or the embedding's output."""
    out: Tensor
    """(B, T, k) for the next stage, not rounded to the wire; at the last stage the loss, a scalar."""


class StagePass:
    """Stage `stage` of a run on `device`. Weights are arguments of each pass."""

    def __init__(self, spec: RunSpec, stage: int, device: torch.device) -> None:
        self.spec, self.device = spec, device
        self._module = Stage(spec, stage)
        self._module.move_tables(device)
        self.first, self.last = self._module.first, self._module.last

    def inputs(self, stage_input: Tensor | None, tokens: Tokens) -> StageInputs:
        """Decode and check an op's inputs. Raises PayloadError or BadValueError."""
        ids, labels = token_tensors(self.spec, tokens, self.device)
        if (stage_input is None) is not self.first:
            raise PayloadError("stage 0 reads tokens and takes no stage input; every other stage needs one")
        return StageInputs(ids, labels, None if stage_input is None else self.received(stage_input))

    def received(self, payload: Tensor) -> Tensor:
        """Boundary tensor (B, T, k) of a neighbour's payload. Raises PayloadError or BadValueError."""
        moved = payload.to(self.device, non_blocking=True)
        tensor = decode_wire(moved, payload_shape(self.spec), self.spec.boundary.wire)
        if not all_finite(tensor):
            raise BadValueError("NaN or Inf in a received tensor")
        return tensor

    def run(self, weights: Mapping[str, Tensor], inputs: StageInputs, *, keep: bool) -> Graph:
        """Run the module, and at the last stage the loss. `keep` records the graph for a backward."""
        received = inputs.received_BTK
        with torch.set_grad_enabled(keep), autocast(self.spec.precision, self.device):
            if received is not None:
                received.requires_grad_(keep)
            result = run_stage(self._module, dict(weights), received, inputs.ids_BT)
            out = token_loss(result.out, inputs.labels_BT) if self.last else result.out
        return Graph(result.entry_BTD if received is None else received, out)

    def token_losses(self, weights: Mapping[str, Tensor], inputs: StageInputs) -> Tensor:
        """Nats of each token (B, T) in fp32, at the last stage; without a graph."""
        with torch.no_grad(), autocast(self.spec.precision, self.device):
            result = run_stage(self._module, dict(weights), inputs.received_BTK, inputs.ids_BT)
            return token_losses(result.out, inputs.labels_BT)
