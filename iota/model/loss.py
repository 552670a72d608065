"""The loss of the last stage, in chunks of tokens: logits never exist whole.

Liger's and cut-cross-entropy's fused losses need Triton, so that no CPU could repeat an op. These lines
use torch's own kernels, and sum in the order of the chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from iota.model.graph_sizes import LOSS_CHUNK
from iota.model.layer import operand


def token_loss(normed_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor, chunk: int = LOSS_CHUNK) -> Tensor:
    """Mean cross entropy in nats per token, a scalar in fp32.

    `normed_BTD` is the output of the final norm. Gradients are computed in the forward, so that no product
    is repeated; the head's is summed in fp32 over the chunks.
    """
    normed_ND, labels_N = operand(normed_BTD).flatten(0, 1), labels_BT.flatten()
    loss: Tensor = _Loss.apply(normed_ND, operand(head_VD), labels_N, chunk)  # type: ignore[no-untyped-call]
    return loss


def token_losses(normed_BTD: Tensor, head_VD: Tensor, labels_BT: Tensor, chunk: int = LOSS_CHUNK) -> Tensor:
    """Cross entropy of each token in nats, (B, T) in fp32; arguments as of `token_loss`. Without a graph."""
    normed_ND, labels_N = operand(normed_BTD).flatten(0, 1), labels_BT.flatten()
    with torch.no_grad():
        losses = [
            cross_entropy(F.linear(normed_ND[part], head_VD), labels_N[part])
            for part in _chunks(len(labels_N), chunk)
        ]
    return torch.cat(losses).view(labels_BT.shape)


def cross_entropy(logits_NV: Tensor, labels_N: Tensor) -> Tensor:
    """Cross entropy of each token in nats, (N) in fp32."""
    return F.cross_entropy(logits_NV.float(), labels_N, reduction="none")


def _chunks(tokens: int, chunk: int) -> Iterator[slice]:
    return (slice(first, first + chunk) for first in range(0, tokens, chunk))


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, normed_ND: Tensor, head_VD: Tensor, labels_N: Tensor, chunk: int) -> Tensor:
        tokens = len(labels_N)
        loss = torch.zeros((), device=normed_ND.device)
        at_normed_ND, at_head_VD = torch.empty_like(normed_ND), torch.zeros(())
        head = head_VD.detach().requires_grad_()
        for number, part in enumerate(_chunks(tokens, chunk)):
            normed = normed_ND[part].detach().requires_grad_()
            with torch.enable_grad():
                own = cross_entropy(F.linear(normed, head), labels_N[part]).sum() / tokens
            at_normed_ND[part], at_head = torch.autograd.grad(own, (normed, head))
            loss += own.detach()
            at_head_VD = at_head_VD.float().add_(at_head) if number else at_head
            del at_head  # gigabytes, beside those of the next chunk
        ctx.save_for_backward(at_normed_ND, at_head_VD.to(head_VD.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        at_normed_ND, at_head_VD = ctx.saved_tensors
        return at_normed_ND.mul_(gradient), at_head_VD.mul_(gradient), None, None
