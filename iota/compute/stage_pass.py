"""One stage on one device: checks an op's inputs, and runs the module on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from iota.codec.errors import PayloadError
from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import decode_wire
from iota.compute.activations import open_saving
from iota.compute.compiled import open_layer
from iota.compute.devices import device_of
from iota.compute.finite import checksum
from iota.compute.offload import Offload
from iota.compute.precision import autocast
from iota.compute.tokens import Tokens, token_tensors
from iota.model.loss import token_loss, token_losses
from iota.model.stage import Stage, StageOutput, run_stage
from iota.settings import Activations
from iota.spec import RunSpec


@dataclass(frozen=True)
class StageInputs:
    """Inputs of an op, on the device."""

    ids_BT: Tensor
    labels_BT: Tensor
    received_BTK: Tensor | None
    """The decoded stage input; None at stage 0."""

    @property
    def checks(self) -> dict[str, Tensor]:
        """As in `DeviceOutput`."""
        return {} if self.received_BTK is None else {"the stage input": checksum(self.received_BTK)}


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
        self._offload = Offload(device)
        self._open_layer = open_layer(spec.model, spec.data.sequence_length, device)
        self.first, self.last = self._module.first, self._module.last

    def inputs(self, stage_input: Tensor | None, tokens: Tokens) -> StageInputs:
        """Decode an op's inputs, and check all but their values. Raises PayloadError."""
        ids, labels = token_tensors(self.spec, tokens, self.device)
        if (stage_input is None) is not self.first:
            raise PayloadError("stage 0 reads tokens and takes no stage input; every other stage needs one")
        return StageInputs(ids, labels, None if stage_input is None else self.received(stage_input))

    def received(self, payload: Tensor) -> Tensor:
        """Boundary tensor (B, T, k) of a neighbour's payload; its values may be bad. Raises PayloadError."""
        moved = device_of(self.device).to_device(payload)
        return decode_wire(moved, payload_shape(self.spec), self.spec.boundary.wire)

    def forward(self, weights: Mapping[str, Tensor], inputs: StageInputs) -> Tensor:
        """What a stage other than the last sends, (B, T, k) as in `Graph`; without a graph."""
        with torch.no_grad(), autocast(self.spec.precision, self.device):
            return self._run(weights, inputs).out

    def graph(
        self,
        weights: Mapping[str, Tensor],
        inputs: StageInputs,
        activations: Activations = Activations.KEEP,
    ) -> Graph:
        """Run the module, and at the last stage the loss, for a backward. `activations` is not AUTO."""
        received = inputs.received_BTK
        saving = open_saving(activations, self._offload, [*weights.values(), *self._module.tables])
        with torch.enable_grad(), autocast(self.spec.precision, self.device):
            if received is not None:
                received.requires_grad_()
            result = run_stage(self._module, dict(weights), received, inputs.ids_BT, saving, self._open_layer)
            out = result.out
            if self.last:
                out = token_loss(out, weights["head.weight"], inputs.labels_BT)
        return Graph(result.entry_BTD if received is None else received, out)

    def token_losses(self, weights: Mapping[str, Tensor], inputs: StageInputs) -> Tensor:
        """Nats of each token (B, T) in fp32, at the last stage; without a graph."""
        with torch.no_grad(), autocast(self.spec.precision, self.device):
            result = self._run(weights, inputs)
            return token_losses(result.out, weights["head.weight"], inputs.labels_BT)

    def _run(self, weights: Mapping[str, Tensor], inputs: StageInputs) -> StageOutput:
        """Without a graph."""
        received, ids = inputs.received_BTK, inputs.ids_BT
        return run_stage(self._module, dict(weights), received, ids, open_layer=self._open_layer)
