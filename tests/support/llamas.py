"""Tiny Llamas of `transformers` with random weights, as other projects export them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

SHAPE = {
    "vocab_size": 257,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "initializer_range": 0.1,
}


def save_llama(
    folder: Path, dtype: torch.dtype = torch.float32, shard: str = "5GB", **config: Any
) -> LlamaForCausalLM:
    """Writes the model to `folder` and returns it as it is loaded from there, in fp32."""
    torch.manual_seed(3)
    LlamaForCausalLM(LlamaConfig(**{**SHAPE, **config})).to(dtype).save_pretrained(
        folder, max_shard_size=shard
    )
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def change_config(folder: Path, **values: Any) -> None:
    """Replaces values of the folder's `config.json`; None removes one."""
    config = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
