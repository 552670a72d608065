"""A Llama with boundary codecs between its layers, as trained by IOTA.

Each export contains a copy of this file, and `boundary_codec.py` with the encode and decode functions of
the run's codec. Both import only torch and transformers. At each boundary the residual stream is encoded,
rounded as on the wire, and decoded.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from .boundary_codec import TRANSFORMERS, decode, encode

_FOUND = tuple(int(part) for part in transformers.__version__.split(".")[:2])
if not TRANSFORMERS[0] <= _FOUND < TRANSFORMERS[1]:
    _FROM, _BELOW = (".".join(map(str, version)) for version in TRANSFORMERS)
    raise ImportError(
        f"this model was tested with transformers from {_FROM} and below {_BELOW}, and this is"
        f" {transformers.__version__}: pip install 'transformers>={_FROM},<{_BELOW}'"
    )


class IotaConfig(LlamaConfig):  # type: ignore[misc]
    """LlamaConfig with the run's boundaries.

    `boundary_layers` is the number of layers before each boundary. `boundary_parameters` is the shape of
    each codec parameter, by side and name; `boundary_tables` are those with one row for each token id, by
    side. `boundary_width` is k, the channels that cross a boundary. `boundary_codec` and `boundary_wire` are
    those of the run's spec, `boundary_needs_ids` says whether the codec reads token ids.
    """

    model_type = "iota"

    boundary_layers: list[int] | None = None
    boundary_codec: str = "identity"
    boundary_wire: str = "fp32"
    boundary_width: int = 0
    boundary_needs_ids: bool = False
    boundary_parameters: dict[str, dict[str, list[int]]] | None = None
    boundary_tables: dict[str, list[str]] | None = None


class CodecSide(nn.Module):
    """The codec's parameters on one side of a boundary, each registered under its dotted name."""

    def __init__(self, shapes: dict[str, list[int]]) -> None:
        super().__init__()
        for name, shape in shapes.items():
            self.replace(name, torch.zeros(shape))

    def replace(self, name: str, values: Tensor) -> None:
        """Register `values` as the parameter with this dotted name."""
        at: nn.Module = self
        *path, last = name.split(".")
        for part in path:
            if part not in dict(at.named_children()):
                at.add_module(part, nn.Module())
            at = at.get_submodule(part)
        at.register_parameter(last, nn.Parameter(values))

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

    def forward(self, x: Tensor, ids: Tensor | None) -> Tensor:
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


class IotaDecoderLayer(LlamaDecoderLayer):  # type: ignore[misc]
    """A layer of Llama, after the boundary before it where there is one."""

    def __init__(self, config: IotaConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.boundary = Boundary(config) if layer_idx in (config.boundary_layers or []) else None

    def forward(self, hidden_states: Tensor, token_ids: Tensor | None = None, **kwargs: Any) -> Any:
        """As LlamaDecoderLayer; `token_ids` (B, T) are those of the positions in `hidden_states`."""
        if self.boundary is not None:
            hidden_states = self.boundary(hidden_states, token_ids)
        return super().forward(hidden_states, **kwargs)


class _ResizesTables:
    """`resize_token_embeddings` that also gives the codecs' tables one row for each id."""

    def resize_token_embeddings(
        self, new_num_tokens: int | None = None, *args: Any, **kwargs: Any
    ) -> nn.Embedding:
        """As in transformers. New rows of codec tables are zeros, which add nothing at a boundary."""
        embedding: nn.Embedding = super().resize_token_embeddings(  # type: ignore[misc]
            new_num_tokens, *args, **kwargs
        )
        rows, config = embedding.weight.shape[0], self.config  # type: ignore[attr-defined]
        for side, names in (config.boundary_tables or {}).items():
            for name in names:
                config.boundary_parameters[side][name][0] = rows
                for boundary in (m for m in self.modules() if isinstance(m, Boundary)):  # type: ignore[attr-defined]
                    codec_side = getattr(boundary, side)
                    old = codec_side.weights()[name].data
                    new = old.new_zeros((rows, *old.shape[1:]))
                    new[: old.shape[0]] = old[:rows]
                    codec_side.replace(name, new)
        return embedding


class IotaModel(_ResizesTables, LlamaModel):  # type: ignore[misc]
    """LlamaModel with boundaries between its layers."""

    config_class = IotaConfig
    _no_split_modules = ["IotaDecoderLayer"]  # noqa: RUF012

    def __init__(self, config: IotaConfig) -> None:
        if rope := getattr(config, "rope_parameters", None):
            config.rope_theta = rope["rope_theta"]  # versions before 5 read it here, later ones save it there
        scaled = _FOUND[0] < 5 and rope and rope["rope_type"] != "default"
        if scaled:
            config.rope_scaling = rope
        super().__init__(config)
        if scaled:  # not kept: it would be saved, and version 5 opens no tokenizer beside both spellings
            config.rope_scaling = None
        self.layers = nn.ModuleList(IotaDecoderLayer(config, i) for i in range(config.num_hidden_layers))
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        token_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As LlamaModel.

        `token_ids` (B, T) go with `inputs_embeds` (B, T, d), for codecs that read the ids. Raises ValueError
        where such a codec gets none.
        """
        ids = token_ids if input_ids is None else input_ids
        if ids is None and self.config.boundary_needs_ids:
            raise ValueError(
                f"the boundaries of this model ({self.config.boundary_codec}) read token ids: pass token_ids"
                " (B, T) with inputs_embeds"
            )
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            token_ids=ids,
            **kwargs,
        )


class IotaForCausalLM(_ResizesTables, LlamaForCausalLM):  # type: ignore[misc]
    """LlamaForCausalLM over IotaModel, with a head of its own weights (not tied to the embedding)."""

    config_class = IotaConfig
    _no_split_modules = ["IotaDecoderLayer"]  # noqa: RUF012
    _tied_weights_keys = None

    def __init__(self, config: IotaConfig) -> None:
        super().__init__(config)
        self.model = IotaModel(config)
        self.post_init()

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        *args: Any,
        inputs_embeds: Tensor | None = None,
        token_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """As in transformers; `token_ids` go with `inputs_embeds` to the first step."""
        inputs: dict[str, Any] = super().prepare_inputs_for_generation(
            input_ids, *args, inputs_embeds=inputs_embeds, **kwargs
        )
        if inputs.get("input_ids") is None:
            inputs["token_ids"] = token_ids
        return inputs
