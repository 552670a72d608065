"""A Llama with boundary codecs between its layers, as trained by IOTA.

Each export contains a copy of this file, and `boundary_codec.py` with the encode and decode functions of
the run's codec. Both import only torch and transformers. At each boundary the residual stream is encoded,
rounded as on the wire, and decoded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, LlamaModel
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast

from .boundary_codec import decode, encode


class IotaConfig(LlamaConfig):  # type: ignore[misc]
    """LlamaConfig with the run's boundaries.

    `boundary_layers` is the number of layers before each boundary. `boundary_parameters` is the shape of
    each codec parameter, by side and name. `boundary_width` is k, the channels that cross a boundary.
    `boundary_codec` and `boundary_wire` are those of the run's spec.
    """

    model_type = "iota"

    boundary_layers: list[int] | None = None
    boundary_codec: str = "identity"
    boundary_wire: str = "fp32"
    boundary_width: int = 0
    boundary_parameters: dict[str, dict[str, list[int]]] | None = None


class CodecSide(nn.Module):
    """The codec's parameters on one side of a boundary, each registered under its dotted name."""

    def __init__(self, shapes: dict[str, list[int]]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            at: nn.Module = self
            *path, last = name.split(".")
            for part in path:
                if part not in dict(at.named_children()):
                    at.add_module(part, nn.Module())
                at = at.get_submodule(part)
            at.register_parameter(last, nn.Parameter(torch.zeros(shape)))

    def weights(self) -> dict[str, Tensor]:
        """The parameters by name, as the codec's functions take them."""
        return dict(self.named_parameters())


class Boundary(nn.Module):
    """Encodes, rounds to the wire and decodes: (B, T, d) -> (B, T, d)."""

    def __init__(self, config: IotaConfig) -> None:
        super().__init__()
        self.wire = config.boundary_wire
        parameters = config.boundary_parameters or {}
        self.encode, self.decode = (CodecSide(parameters.get(side, {})) for side in ("encode", "decode"))

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        """`x` is (B, T, d), `ids` are the token ids (B, T)."""
        z = round_wire(encode(self.encode.weights(), x, ids), self.wire)
        y: Tensor = decode(self.decode.weights(), z, ids)
        return y


def round_wire(x: Tensor, wire: str) -> Tensor:
    """Round to the values that the receiver of a boundary tensor had in training.

    The formulas are those of iota/codec/wire_dtype.py.
    """
    if wire == "bf16":
        return x.to(torch.bfloat16).to(x.dtype)
    if wire == "int8":
        scale = x.float().abs().amax(-1, keepdim=True) / 127.0
        divisor = torch.where(scale > 0, scale, torch.ones_like(scale))
        rounded: Tensor = (x.float() / divisor).round().clamp(-127, 127) * scale
        return rounded.to(x.dtype)
    return x


class IotaModel(LlamaModel):  # type: ignore[misc]
    """LlamaModel with boundaries between its layers."""

    config_class = IotaConfig

    def __init__(self, config: IotaConfig) -> None:
        super().__init__(config)
        self.boundaries = nn.ModuleList(Boundary(config) for _ in config.boundary_layers or [])
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """As LlamaModel, but needs `input_ids` (B, T): codecs may embed them. Raises ValueError without."""
        if input_ids is None or inputs_embeds is not None:
            raise ValueError("pass input_ids: token anchors need the ids, embeddings alone are not enough")
        x = self.embed_tokens(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        if position_ids is None:
            position_ids = self._positions(input_ids, attention_mask, past_key_values)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=x,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            position_ids=position_ids,
        )
        positions = self.rotary_emb(x, position_ids=position_ids)
        crossings = dict(zip(self.config.boundary_layers or [], self.boundaries, strict=True))
        for depth, layer in enumerate(self.layers):
            if depth in crossings:
                x = crossings[depth](x, input_ids)
            x = layer(
                x,
                attention_mask=mask,
                position_embeddings=positions,
                position_ids=position_ids,
                past_key_values=past_key_values,
                use_cache=use_cache,
                **kwargs,
            )
        return BaseModelOutputWithPast(last_hidden_state=self.norm(x), past_key_values=past_key_values)

    def _positions(self, ids: Tensor, attention_mask: Tensor | None, cache: Any) -> Tensor:
        """Positions (B, T), counted from the first token that is not padding: left padding has no effect."""
        if attention_mask is not None and attention_mask.dim() == 2:
            counted = attention_mask.long().cumsum(-1) - 1
            return counted.clamp(min=0)[:, -ids.shape[1] :]
        seen = cache.get_seq_length() if cache is not None else 0
        return (torch.arange(ids.shape[1], device=ids.device) + seen).unsqueeze(0)


class IotaForCausalLM(LlamaForCausalLM):  # type: ignore[misc]
    """LlamaForCausalLM over IotaModel, with a head of its own weights (not tied to the embedding)."""

    config_class = IotaConfig
    _tied_weights_keys: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, config: IotaConfig) -> None:
        super().__init__(config)
        self.model = IotaModel(config)
        self.post_init()
