"""Rows of an embedding table in fp32, also where the table is bf16."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def look_up(table_VD: Tensor, ids_BT: Tensor) -> Tensor:
    """(B, T, D) fp32: the rows of `ids_BT`.

    The gradient of a bf16 table is summed in fp32 and rounded once: a frequent token has as many addends as
    it has places, and a sum in bf16 would lose most of them.
    """
    if table_VD.dtype is torch.float32:
        return F.embedding(ids_BT, table_VD)
    rows: Tensor = _LookUp.apply(table_VD, ids_BT)  # type: ignore[no-untyped-call]
    return rows


class _LookUp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table_VD: Tensor, ids_BT: Tensor) -> Tensor:
        ctx.save_for_backward(ids_BT)
        ctx.rows, ctx.dtype = table_VD.shape[0], table_VD.dtype
        return F.embedding(ids_BT, table_VD).float()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (ids_BT,) = ctx.saved_tensors
        summed = torch.ops.aten.embedding_dense_backward(gradients[0], ids_BT, ctx.rows, -1, False)
        return summed.to(ctx.dtype), None
