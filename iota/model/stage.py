"""A stage: a contiguous slice of a Llama.

Modules are those of `transformers`, built on the meta device: their parameters have names and
shapes but no memory. Weights are arguments of each call (`run_stage`), so that several versions can be in
use at once. Layers are computed by `iota.model.layer`.
"""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import (
    LlamaDecoderLayer,
    LlamaRMSNorm,
    LlamaRotaryEmbedding,
)

from iota.codec import open_codec
from iota.codec.boundary_codec import Side
from iota.codec.shapes import boundary_parameters
from iota.model.documents import document_numbers, plain_layer
from iota.model.layer import KeepAll, OpenLayer, Saving, Tables, rms_norm
from iota.model.layout import stage_layers
from iota.model.lookup import look_up
from iota.model.rope import rope_parameters
from iota.spec import ModelSpec, RunSpec

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
        config = llama_config(spec.model, spec.data.sequence_length)
        # The tables of cos and sin depend on the shape only, so they are made once.
        rotary = LlamaRotaryEmbedding(config)
        positions = torch.arange(spec.data.sequence_length)[None]
        self._tables = Tables(*rotary(torch.empty(0), positions))
        with torch.device("meta"):
            self._build(spec, config)

    def _build(self, spec: RunSpec, config: LlamaConfig) -> None:
        model = spec.model
        if self.first:
            self.embed = nn.Embedding(model.vocab_size, model.hidden_size)
        layers = stage_layers(spec.layout.cuts, self.index)
        self.layers = nn.ModuleDict({str(i): LlamaDecoderLayer(config, i) for i in layers})
        if self.last:
            self.norm = LlamaRMSNorm(model.hidden_size, eps=model.norm_eps)
            self.head = nn.Linear(model.hidden_size, model.vocab_size, bias=False)
        self.boundary = nn.Module()
        parameters = boundary_parameters(model, spec.boundary, self.index, spec.layout.stages)
        for name, parameter in parameters.items():
            own = name.removeprefix("boundary.")
            _add_parameter(self.boundary, own, nn.Parameter(torch.empty(parameter.shape)))

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
        if z_BTK is None:
            entry_BTD = look_up(self.embed.weight, ids_BT)
        else:
            decoder = self._boundary_weights(self.index - 1, Side.DECODE)
            entry_BTD = self._codec.decode(decoder, z_BTK, ids_BT)
        x_BTD, length = entry_BTD, entry_BTD.shape[1]
        tables = Tables(*(table[:, :length] for table in self._tables))
        run_layer = open_layer(None if self._eos is None else document_numbers(ids_BT, self._eos))
        for layer in self.layers.values():
            weights = dict(layer.named_parameters())  # as functional_call set them
            run = partial(run_layer, weights, self._model, tables, saving)
            x_BTD = saving.layer(run, x_BTD)
        if self.last:
            return StageOutput(entry_BTD, rms_norm(x_BTD, self.norm.weight, self._model.norm_eps))
        encoder = self._boundary_weights(self.index, Side.ENCODE)
        return StageOutput(entry_BTD, self._codec.encode(encoder, x_BTD, ids_BT).float())

    def _boundary_weights(self, index: int, side: Side) -> dict[str, Tensor]:
        """The codec's parameters on one side of boundary `index`, as functional_call set them."""
        at = f"{index}.{side}."
        return {n.removeprefix(at): w for n, w in self.boundary.named_parameters() if n.startswith(at)}


def _add_parameter(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Register `parameter` under a dotted name; each part before the last becomes a submodule."""
    *path, last = name.split(".")
    for part in path:
        if part not in dict(module.named_children()):
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


def llama_config(model: ModelSpec, positions: int) -> LlamaConfig:
    """The `transformers` configuration of a shape, for sequences of up to `positions` tokens."""
    scaling = model.rope_scaling
    config = LlamaConfig(
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        intermediate_size=model.ffn_size,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        # Larger than it need be beside a scaling: transformers warns where it is not above the scaling's own.
        max_position_embeddings=max(positions, scaling.original_positions + 1) if scaling else positions,
        rms_norm_eps=model.norm_eps,
        rope_parameters=rope_parameters(model),
        tie_word_embeddings=False,
        use_cache=False,
    )
    config._attn_implementation = "sdpa"
    return config
