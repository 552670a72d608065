"""Layers compiled by torch, on CUDA: elementwise work is fused, and attention is fast and repeats its bits.

Of torch's own attention none does both backwards. On an H100, for 8,192 tokens and 72 heads of 128, it takes
6.3 ms with cuDNN and 20 ms with flash, which alone has a deterministic mode. FlexAttention's kernels sum in a
fixed order and take 9 ms. Compiled and eager kernels round otherwise; the device class names which they are.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from iota.compute.devices import device_of
from iota.model.documents import plain_layer
from iota.model.layer import Attention, KeepAll, Layer, OpenLayer, Saving, Tables, run_layer, sdpa
from iota.spec import ModelSpec

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask, FlexKernelOptions

log = logging.getLogger(__name__)

T = TypeVar("T")

_LEAST_HEAD = 16
"""Channels of a head that FlexAttention needs."""
_SHAPES = 64
"""Shapes of layers that one process may compile: those of its stage, and of its fingerprints."""


def open_layer(model: ModelSpec, tokens: int, device: torch.device) -> OpenLayer:
    """The layer of a model for sequences of `tokens` tokens: compiled where the device can, else as it is."""
    if not is_compiled(device):
        return plain_layer
    flex = model.head_dim >= _LEAST_HEAD

    def opened(documents_BT: Tensor | None) -> Layer:
        if documents_BT is None:
            return _compiled_layer(model, tokens, device)
        # Without FlexAttention code would be compiled for each way to divide a sequence.
        return document_layer(model, documents_BT) if flex else plain_layer(documents_BT)

    return opened


def document_layer(model: ModelSpec, documents_BT: Tensor) -> Layer:
    """The compiled layer of one pass, whose attention stays inside documents.

    The numbers of the documents are an input of the compiled code, which is the same for every pass.
    """
    mask = document_mask(documents_BT, _mask_maker(documents_BT.device))
    return _as_layer(partial(_compiled_within(model), mask))


def document_mask(documents_BT: Tensor, make: Callable[..., BlockMask]) -> BlockMask:
    """Which queries and keys have a document in common, by `make`, torch's `create_block_mask`."""

    def within(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (documents_BT[batch, query] == documents_BT[batch, key])

    batch, tokens = documents_BT.shape
    return make(within, batch, None, tokens, tokens, device=documents_BT.device)


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


def fused(function: Callable[..., T], device: torch.device) -> Callable[..., T]:
    """`function` as one kernel where layers are compiled, in place of some dozen.

    Its bits must not depend on that. A number among its arguments becomes a constant of the compiled code:
    what changes from call to call is given as a tensor.
    """
    if not is_compiled(device):
        return function
    made: Callable[..., T] = _fused(function)
    return made


@cache
def _fused(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True, fullgraph=True)


@cache
def _compiled_layer(shape: ModelSpec, tokens: int, device: torch.device) -> Layer:
    """One for all stages and passes of a shape, since each has code of its own that takes seconds to make."""
    keep, attention = KeepAll(), _attention(shape.head_dim, tokens, device)

    def run(weights: Mapping[str, Tensor], tables: Tables, x_BTD: Tensor) -> Tensor:
        return run_layer(weights, shape, tables, keep, x_BTD, attention)

    return _as_layer(torch.compile(run, dynamic=False, fullgraph=True))


@cache
def _compiled_within(shape: ModelSpec) -> Callable[..., Tensor]:
    keep = KeepAll()

    def run(mask: BlockMask, weights: Mapping[str, Tensor], tables: Tables, x_BTD: Tensor) -> Tensor:
        return run_layer(weights, shape, tables, keep, x_BTD, _flex_attention(mask))

    return torch.compile(run, dynamic=False, fullgraph=True)


def _as_layer(compiled: Callable[..., Tensor]) -> Layer:
    def layer(
        weights: Mapping[str, Tensor], model: ModelSpec, tables: Tables, saving: Saving, x_BTD: Tensor
    ) -> Tensor:
        """What is cheap to compute again the compiled backward computes again, under every policy."""
        return compiled(weights, tables, x_BTD)

    return layer


@cache
def _mask_maker(device: torch.device) -> Callable[..., BlockMask]:
    """Torch's own, compiled where it can be: eagerly it makes all T x T entries first."""
    from torch.nn.attention.flex_attention import create_block_mask

    return torch.compile(create_block_mask, dynamic=False) if is_compiled(device) else create_block_mask


def _attention(head_dim: int, tokens: int, device: torch.device) -> Attention:
    flex = is_compiled(device) and head_dim >= _LEAST_HEAD
    return _flex(tokens, device) if flex else sdpa


@cache
def _flex(tokens: int, device: torch.device) -> Attention:
    from torch.nn.attention.flex_attention import create_block_mask

    def causal(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return query >= key

    return _flex_attention(create_block_mask(causal, None, None, tokens, tokens, device=device))


def _flex_attention(mask: BlockMask) -> Attention:
    from torch.nn.attention.flex_attention import flex_attention

    options: FlexKernelOptions = {"FORCE_USE_FLEX_ATTENTION": True}

    def attention(q_BHTC: Tensor, k_BGTC: Tensor, v_BGTC: Tensor) -> Tensor:
        mixed: Tensor = flex_attention(
            q_BHTC, k_BGTC, v_BGTC, block_mask=mask, enable_gqa=True, kernel_options=options
        )
        return mixed

    return attention
