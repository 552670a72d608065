"""Layers compiled by torch, on CUDA: elementwise work is fused, and attention is fast and repeats its bits.

Of torch's own attention none does both backwards. On an H100, for 8,192 tokens and 72 heads of 128, it takes
6.3 ms with cuDNN and 20 ms with flash, which alone has a deterministic mode. FlexAttention's kernels sum in a
fixed order and take 9 ms. Compiled and eager kernels round otherwise; the device class names which they are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from iota.compute.devices import device_of
from iota.model.layer import Attention, KeepAll, Layer, Saving, Tables, run_layer, sdpa
from iota.spec import ModelSpec

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import FlexKernelOptions

log = logging.getLogger(__name__)

_LEAST_HEAD = 16
"""Channels of a head that FlexAttention needs."""
_SHAPES = 64
"""Shapes of layers that one process may compile: those of its stage, and of its fingerprints."""


def open_layer(model: ModelSpec, tokens: int, device: torch.device) -> Layer:
    """The layer of a model for sequences of `tokens` tokens: compiled where the device can, else as it is."""
    if not is_compiled(device):
        return run_layer
    return _compiled_layer(model, tokens, device)


def open_attention(head_dim: int, tokens: int, device: torch.device) -> Attention:
    """Causal attention by itself, by the kernels that `open_layer` uses."""
    attention = _attention(head_dim, tokens, device)
    return torch.compile(attention, dynamic=False, fullgraph=True) if is_compiled(device) else attention


@cache
def is_compiled(device: torch.device) -> bool:
    """Whether layers are compiled on a device: on CUDA, where torch finds what it needs."""
    if not device_of(device).compiles:
        return False
    torch._dynamo.config.recompile_limit = _SHAPES
    try:
        torch.compile(torch.sin, fullgraph=True)(torch.zeros(8, device=device))
    except (RuntimeError, torch._dynamo.exc.TorchDynamoException) as error:  # a compiler or Triton is missing
        log.warning(
            "layers run without torch.compile, which takes a third more time: %s", str(error).split("\n")[0]
        )
        return False
    return True


@cache
def _compiled_layer(shape: ModelSpec, tokens: int, device: torch.device) -> Layer:
    """One for all stages and passes of a shape, since each has code of its own that takes seconds to make."""
    keep, attention = KeepAll(), _attention(shape.head_dim, tokens, device)

    def run(weights: Mapping[str, Tensor], tables: Tables, x_BTD: Tensor) -> Tensor:
        return run_layer(weights, shape, tables, keep, x_BTD, attention)

    compiled = torch.compile(run, dynamic=False, fullgraph=True)

    def layer(
        weights: Mapping[str, Tensor], model: ModelSpec, tables: Tables, saving: Saving, x_BTD: Tensor
    ) -> Tensor:
        """What is cheap to compute again the compiled backward computes again, under every policy."""
        made: Tensor = compiled(weights, tables, x_BTD)
        return made

    return layer


def _attention(head_dim: int, tokens: int, device: torch.device) -> Attention:
    flex = is_compiled(device) and head_dim >= _LEAST_HEAD
    return _flex(tokens, device) if flex else sdpa


@cache
def _flex(tokens: int, device: torch.device) -> Attention:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def causal(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query >= key

    mask = create_block_mask(causal, None, None, tokens, tokens, device=device)
    options: FlexKernelOptions = {"FORCE_USE_FLEX_ATTENTION": True}

    def attention(q_BHTC: Tensor, k_BGTC: Tensor, v_BGTC: Tensor) -> Tensor:
        mixed: Tensor = flex_attention(
            q_BHTC, k_BGTC, v_BGTC, block_mask=mask, enable_gqa=True, kernel_options=options
        )
        return mixed

    return attention
