"""The files of an export beside its weights: `config.json`, `generation_config.json`, and what they say."""

from __future__ import annotations

import math

from iota.codec import open_codec
from iota.codec.boundary_codec import Side
from iota.codec.shapes import boundary_width
from iota.model.rope import rope_parameters
from iota.spec import RunSpec

TRANSFORMERS = ((4, 57), (6, 0))
"""Versions that an export is tested with: from the first, and below the second."""
EVALUATION_NAME = "evaluation.json"
"""File of the held-out loss, where an export measured it."""
IDENTITY = "identity"
"""The codec whose exports are a plain Llama."""


def is_plain_llama(spec: RunSpec) -> bool:
    """Whether the exported model is a `LlamaForCausalLM`, which needs no code of its own."""
    return spec.boundary.codec == IDENTITY or spec.layout.stages == 1


def boundary_layers(spec: RunSpec) -> list[int]:
    """Number of layers before each boundary."""
    cuts = spec.layout.cuts
    return [sum(cuts[: i + 1]) for i in range(len(cuts) - 1)]


def model_config(spec: RunSpec, eos_token: int) -> dict[str, object]:
    """`config.json`. `eos_token` is the id between documents: it begins and ends a text, and pads."""
    model = spec.model
    return {
        "vocab_size": model.vocab_size,
        "hidden_size": model.hidden_size,
        "intermediate_size": model.ffn_size,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": spec.data.sequence_length,
        "rms_norm_eps": model.norm_eps,
        # Versions before 5 read the first, later ones the second.
        "rope_theta": model.rope_theta,
        "rope_parameters": rope_parameters(model),
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "initializer_range": model.init_std,
        "bos_token_id": eos_token,
        "eos_token_id": eos_token,
        # Not a `pad_token_id`: an embedding does not train its padding row, and EOS is trained.
        "pad_token_id": None,
        "dtype": "float32",
        "torch_dtype": "float32",
        "iota_run": spec.id,
        **(_plain(spec) if is_plain_llama(spec) else _boundaries(spec)),
    }


def _plain(spec: RunSpec) -> dict[str, object]:
    named: dict[str, object] = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    if spec.model.rope_scaling is None:
        return named
    rope = rope_parameters(spec.model)
    del rope["rope_theta"]
    return {**named, "rope_scaling": rope}  # versions before 5 read it here, and the base beside it


def _boundaries(spec: RunSpec) -> dict[str, object]:
    codec = open_codec(spec.boundary.codec)
    sides = {side: codec.parameters(side, spec.model, spec.boundary) for side in Side}
    return {
        "architectures": ["IotaForCausalLM"],
        "model_type": "iota",
        "auto_map": {
            "AutoConfig": "modeling_iota.IotaConfig",
            "AutoModel": "modeling_iota.IotaModel",
            "AutoModelForCausalLM": "modeling_iota.IotaForCausalLM",
        },
        "boundary_layers": boundary_layers(spec),
        "boundary_codec": codec.name,
        "boundary_wire": spec.boundary.wire.value,
        "boundary_width": boundary_width(spec),
        "boundary_needs_ids": codec.needs_tokens,
        "boundary_parameters": {
            side: {name: list(p.shape) for name, p in parameters.items()}
            for side, parameters in sides.items()
        },
        "boundary_tables": {
            side: [name for name, p in parameters.items() if not p.multiplied]
            for side, parameters in sides.items()
        },
    }


def generation_config(eos_token: int) -> dict[str, object]:
    """`generation_config.json`. An empty prompt begins like a document in training: after an EOS."""
    return {
        "do_sample": True,
        "temperature": 0.8,
        "top_p": 0.95,
        "use_cache": True,
        "bos_token_id": eos_token,
        "eos_token_id": eos_token,
        "pad_token_id": eos_token,
    }


def weight_bytes(shape: tuple[int, ...]) -> int:
    """Bytes of one exported tensor, which is fp32."""
    return 4 * math.prod(shape)
