"""Rotary position embeddings, with the bits of `transformers`: to import its Llama takes 2 s and 110 MB."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from iota.spec import ModelSpec


def rotary_tables(model: ModelSpec, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of each position's angles, (1, T, head_dim) fp32 each."""
    angles = torch.arange(length)[None, :, None].float() * _frequencies(model)
    both = torch.cat((angles, angles), dim=-1)
    return both.cos(), both.sin()


def rotate(x_BHTC: Tensor, cos_1TC: Tensor, sin_1TC: Tensor) -> Tensor:
    """Queries or keys, turned by the angles of their positions."""
    half = x_BHTC.shape[-1] // 2
    turned = torch.cat((-x_BHTC[..., half:], x_BHTC[..., :half]), dim=-1)
    return x_BHTC * cos_1TC.unsqueeze(1) + turned * sin_1TC.unsqueeze(1)


def _frequencies(model: ModelSpec) -> Tensor:
    """Radians a position, of each pair of channels; scaled as Llama 3.1 does it (`RopeScaling`)."""
    dim = model.head_dim
    plain = 1.0 / (model.rope_theta ** (torch.arange(0, dim, 2, dtype=torch.float) / dim))
    scaling = model.rope_scaling
    if scaling is None:
        return plain
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    wave = 2 * math.pi / plain
    longest, shortest = scaling.original_positions / low, scaling.original_positions / high
    scaled = torch.where(wave > longest, plain / scaling.factor, plain)
    share = (scaling.original_positions / wave - low) / (high - low)
    between = (1 - share) * scaled / scaling.factor + share * scaled
    return torch.where((wave >= shortest) & (wave <= longest), between, scaled)
