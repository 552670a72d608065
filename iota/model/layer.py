"""One Llama layer as a function of its weights, in pieces: what is cheap to compute again, and what is not.

On the CPU it gives the bits of `transformers`' layer, forward and backward; on CUDA, where the norm is one
kernel here and five there, nearly the same values (`tests/unit/test_layer.py`). That layer has no seams
between its cheap parts and its matrix products, and torch's own checkpoints cannot compute again what a
later product saves: the product's input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from iota.model.rotary import rotate
from iota.spec import ModelSpec

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Causal attention of q (B, H, T, C) over k and v (B, G, T, C), where G divides H: (B, H, T, C)."""
Piece = Callable[..., tuple[Tensor, ...]]
"""A pure function of tensors that repeats its bits. Weights and constants are bound to it."""


class Saving(Protocol):
    """How a pass keeps what its backward needs. The bits are the same, whatever it does."""

    def layer(self, run: Callable[[Tensor], Tensor], x_BTD: Tensor) -> Tensor:
        """Run one layer, whose weights are bound to `run`."""

    def piece(self, run: Piece, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run elementwise work of a layer, which a backward may do again."""


class Layer(Protocol):
    """`run_layer`, or what computes the same by other kernels."""

    def __call__(
        self, weights: Mapping[str, Tensor], model: ModelSpec, tables: Tables, saving: Saving, x_BTD: Tensor
    ) -> Tensor: ...


class KeepAll:
    """Autograd keeps the whole graph."""

    def layer(self, run: Callable[[Tensor], Tensor], x_BTD: Tensor) -> Tensor:
        """See `Saving`."""
        return run(x_BTD)

    def piece(self, run: Piece, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See `Saving`."""
        return run(*inputs)


class Tables(NamedTuple):
    """Rotary embedding of each position, (1, T, head_dim) each."""

    cos: Tensor
    sin: Tensor


def run_layer(
    weights: Mapping[str, Tensor],
    model: ModelSpec,
    tables: Tables,
    saving: Saving,
    x_BTD: Tensor,
    attention: Attention | None = None,
) -> Tensor:
    """The layer's output, (B, T, D). `weights` are named as in `iota.model.layout`, without `layers.N.`.

    `attention` is torch's own (`sdpa`) where none is given.
    """
    linear = partial(_linear, weights)
    to_q, to_k, to_v = saving.piece(_norm(weights, "input", model, 3), x_BTD)
    heads = (*x_BTD.shape[:-1], -1, model.head_dim)
    q, k, v = (
        linear(f"self_attn.{name}_proj", x).view(heads).transpose(1, 2)
        for name, x in (("q", to_q), ("k", to_k), ("v", to_v))
    )
    mixed = (attention or sdpa)(rotate(q, *tables), rotate(k, *tables), v)
    x_BTD = x_BTD + linear("self_attn.o_proj", mixed.transpose(1, 2).reshape(x_BTD.shape))
    to_gate, to_up = saving.piece(_norm(weights, "post_attention", model, 2), x_BTD)
    gate, up = linear("mlp.gate_proj", to_gate), linear("mlp.up_proj", to_up)
    (product,) = saving.piece(_swiglu, gate, up)
    return x_BTD + linear("mlp.down_proj", product)


def sdpa(q_BHTC: Tensor, k_BGTC: Tensor, v_BGTC: Tensor) -> Tensor:
    """Causal attention by torch's fused kernels."""
    grouped = q_BHTC.shape[1] != k_BGTC.shape[1]
    return F.scaled_dot_product_attention(q_BHTC, k_BGTC, v_BGTC, is_causal=True, enable_gqa=grouped)


def rms_norm(x_BTD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
    """RMS norm, all in fp32: one kernel on CUDA; on the CPU the kernels and bits of `transformers`."""
    return F.rms_norm(x_BTD, weight_D.shape, weight_D.float(), eps)


def operand(x: Tensor) -> Tensor:
    """`x` in the dtype of matrix products: that of autocast where it is on."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def _norm(weights: Mapping[str, Tensor], name: str, model: ModelSpec, products: int) -> Piece:
    return partial(_normed, weights[f"{name}_layernorm.weight"], model.norm_eps, products)


def _normed(weight_D: Tensor, eps: float, products: int, x_BTD: Tensor) -> tuple[Tensor, ...]:
    """The norm's output once for each of the matrix products that read it."""
    normed = rms_norm(x_BTD, weight_D, eps)
    return _FanOut.apply(normed, operand(normed.detach()), products)  # type: ignore[no-untyped-call, no-any-return]


def _swiglu(gate: Tensor, up: Tensor) -> tuple[Tensor, ...]:
    return (F.silu(gate) * up,)


def _linear(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    return F.linear(x, weights[f"{name}.weight"])


class _FanOut(torch.autograd.Function):
    """One copy of a norm's output for several products, whose gradients are summed in the norm's dtype.

    Autocast would make and save a copy for each. Gradients are added from the last product to the first,
    as autograd does.
    """

    @staticmethod
    def forward(ctx: Any, normed: Tensor, converted: Tensor, products: int) -> tuple[Tensor, ...]:
        ctx.dtype = normed.dtype
        return tuple(converted.view_as(converted) for _ in range(products))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        *earlier, last = gradients
        total = last.to(ctx.dtype)
        for gradient in reversed(earlier):
            total = total + gradient  # in the dtype of the total
        return total, None, None
