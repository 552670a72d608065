"""A stage: a contiguous slice of a Llama, made of transformers' own layers.

Modules are built on the meta device: they name and connect parameters but hold none. Weights are
handed to each call (`run_stage`), so that several versions of them can be in use at once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
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
from iota.model.layout import stage_layers
from iota.spec import ModelSpec, RunSpec


class StageOutput(NamedTuple):
    entry_BTD: Tensor
    """What entered the first layer: the embedding's output at stage 0, else the decoded input."""
    out: Tensor
    """(B, T, k) fp32 for the next stage, unrounded; logits (B, T, V) at the last stage."""


class Stage(nn.Module):
    """Stage `stage` of a run. Parameter names are global: they do not depend on the cut."""

    def __init__(self, spec: RunSpec, stage: int) -> None:
        super().__init__()
        if not 0 <= stage < spec.layout.stages:
            raise ValueError(f"stage {stage} is not one of this run's {spec.layout.stages}")
        self.index = stage
        self.first, self.last = stage == 0, stage == spec.last_stage
        self._codec = open_codec(spec.boundary.codec)
        config = llama_config(spec.model, spec.data.sequence_length)
        # tables of cos and sin follow from the shape alone, and are made once
        rotary = LlamaRotaryEmbedding(config)
        positions = torch.arange(spec.data.sequence_length)[None]
        self._cos, self._sin = rotary(torch.empty(0), positions)
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
        """Put the position tables on `device`; parameters are handed to each call instead."""
        self._cos, self._sin = self._cos.to(device), self._sin.to(device)

    def forward(self, z_BTK: Tensor | None, ids_BT: Tensor) -> StageOutput:
        """`z_BTK` is the received boundary tensor, None at stage 0."""
        x_BTD = self.enter(z_BTK, ids_BT)
        return StageOutput(x_BTD, self.leave(self.through(x_BTD), ids_BT))

    def enter(self, z_BTK: Tensor | None, ids_BT: Tensor) -> Tensor:
        if z_BTK is None:
            embedded: Tensor = self.embed(ids_BT)
            return embedded
        return self._codec.decode(self._boundary_weights(self.index - 1, Side.DECODE), z_BTK, ids_BT)

    def through(self, x_BTD: Tensor) -> Tensor:
        length = x_BTD.shape[1]
        positions = (self._cos[:, :length], self._sin[:, :length])
        for layer in self.layers.values():
            # no mask: the layers' sdpa attention is causal by its own flag
            x_BTD = layer(x_BTD, attention_mask=None, position_embeddings=positions)
        return x_BTD

    def leave(self, x_BTD: Tensor, ids_BT: Tensor) -> Tensor:
        if self.last:
            logits: Tensor = self.head(self.norm(x_BTD))
            return logits
        return self._codec.encode(self._boundary_weights(self.index, Side.ENCODE), x_BTD, ids_BT).float()

    def _boundary_weights(self, index: int, side: Side) -> dict[str, Tensor]:
        """The codec's parameters on one side of boundary `index`: those that this call was given."""
        at = f"{index}.{side}."
        return {n.removeprefix(at): w for n, w in self.boundary.named_parameters() if n.startswith(at)}


def _add_parameter(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Register `parameter` under a dotted name, with a plain module for each part before the last."""
    *path, last = name.split(".")
    for part in path:
        if part not in dict(module.named_children()):
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    module.register_parameter(last, parameter)


def run_stage(stage: Stage, weights: dict[str, Tensor], z_BTK: Tensor | None, ids_BT: Tensor) -> StageOutput:
    """Run `stage` with these weights (all of its parameters, by name)."""
    output: StageOutput = functional_call(stage, weights, (z_BTK, ids_BT), strict=True)
    return output


def token_loss(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """Mean nats a token, a scalar in fp32."""
    return F.cross_entropy(logits_BTV.float().flatten(0, 1), labels_BT.flatten())


def llama_config(model: ModelSpec, positions: int) -> LlamaConfig:
    config = LlamaConfig(
        vocab_size=model.vocab_size,
        hidden_size=model.hidden_size,
        intermediate_size=model.ffn_size,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        max_position_embeddings=positions,
        rms_norm_eps=model.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": model.rope_theta},
        tie_word_embeddings=False,
        use_cache=False,
    )
    config._attn_implementation = "sdpa"
    return config
