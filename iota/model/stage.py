"""A stage: a contiguous slice of a Llama.

Its parameters have names and shapes and, being on the meta device, no memory. Weights are arguments of each
call (`run_stage`), so that several versions can be in use at once. Layers are computed by
`iota.model.layer`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from iota.codec import open_codec
from iota.codec.boundary_codec import Side
from iota.model.documents import document_numbers, plain_layer
from iota.model.layer import KeepAll, OpenLayer, Saving, Tables, rms_norm
from iota.model.layout import run_shapes, stage_layers
from iota.model.lookup import look_up
from iota.model.rotary import rotary_tables
from iota.spec import RunSpec

_KEEP_ALL: Final = KeepAll()


class StageOutput(NamedTuple):
    """Result of a forward pass through a stage."""

    entry_BTD: Tensor
    """Input of the first layer: the embedding's output at stage 0, else the decoded boundary tensor."""
    out: Tensor
    """(B, T, k) fp32 for the next stage, not rounded to the wire; at the last stage (B, T, D), which its head
    multiplies (`iota.model.loss`)."""


class Stage(nn.Module):
    """Stage `stage` of a run. Parameter names do not depend on the cut.

    Raises:
        ValueError: if the run has no such stage.
    """

    def __init__(self, spec: RunSpec, stage: int) -> None:
        super().__init__()
        if not 0 <= stage < spec.layout.stages:
            raise ValueError(f"stage {stage} is not one of this run's {spec.layout.stages}")
        self.index = stage
        self.first, self.last = stage == 0, stage == spec.last_stage
        self._model, self._codec = spec.model, open_codec(spec.boundary.codec)
        self._eos = spec.data.eos_id
        # The tables of cos and sin depend on the shape only, so they are made once.
        self._tables = Tables(*rotary_tables(spec.model, spec.data.sequence_length))
        self._layers: dict[int, dict[str, str]] = {i: {} for i in stage_layers(spec.layout.cuts, stage)}
        """Of each layer, its weights' names in the layer -> in the stage."""
        for name, shape in run_shapes(spec, stage).items():
            _add_parameter(self, name, nn.Parameter(torch.empty(shape, device="meta")))
            if name.startswith("layers."):
                _, index, own = name.split(".", 2)
                self._layers[int(index)][own] = name

    def move_tables(self, device: torch.device) -> None:
        """Move the tables of cos and sin to `device`."""
        self._tables = Tables(*(table.to(device) for table in self._tables))

    @property
    def tables(self) -> Tables:
        """The tables of cos and sin."""
        return self._tables

    def forward(
        self, z_BTK: Tensor | None, ids_BT: Tensor, saving: Saving, open_layer: OpenLayer
    ) -> StageOutput:
        """`z_BTK` is the received boundary tensor, None at stage 0; `ids_BT` are the input token ids."""
        weights = dict(self.named_parameters())  # as functional_call set them
        if z_BTK is None:
            entry_BTD = look_up(weights["embed.weight"], ids_BT)
        else:
            decoder = _under(f"boundary.{self.index - 1}.{Side.DECODE}.", weights)
            entry_BTD = self._codec.decode(decoder, z_BTK, ids_BT)
        x_BTD, length = entry_BTD, entry_BTD.shape[1]
        tables = Tables(*(table[:, :length] for table in self._tables))
        run_layer = open_layer(None if self._eos is None else document_numbers(ids_BT, self._eos))
        for names in self._layers.values():
            own = {short: weights[name] for short, name in names.items()}
            x_BTD = saving.layer(partial(run_layer, own, self._model, tables, saving), x_BTD)
        if self.last:
            return StageOutput(entry_BTD, rms_norm(x_BTD, weights["norm.weight"], self._model.norm_eps))
        encoder = _under(f"boundary.{self.index}.{Side.ENCODE}.", weights)
        return StageOutput(entry_BTD, self._codec.encode(encoder, x_BTD, ids_BT).float())


def _under(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights whose names begin with `prefix`, by the rest of their names."""
    return {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}


def _add_parameter(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Register `parameter` under a dotted name; each part before the last becomes a submodule."""
    *path, last = name.split(".")
    for part in path:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    module.register_parameter(last, parameter)


def run_stage(
    stage: Stage,
    weights: dict[str, Tensor],
    z_BTK: Tensor | None,
    ids_BT: Tensor,
    saving: Saving = _KEEP_ALL,
    open_layer: OpenLayer = plain_layer,
) -> StageOutput:
    """Run `stage` with `weights`, which has all of its parameters by name. Shapes as in `Stage.forward`."""
    output: StageOutput = functional_call(stage, weights, (z_BTK, ids_BT, saving, open_layer), strict=True)
    return output
