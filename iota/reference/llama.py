"""The Llama of `transformers` that layers and exports are held against."""

from __future__ import annotations

from transformers.models.llama.configuration_llama import LlamaConfig

from iota.model.rope import rope_parameters
from iota.spec import ModelSpec


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
