"""Attention that stays inside a document. In packed text one EOS stands between two documents.

A document begins with the EOS before it: what is computed of it is what an exported model computes that is
given an EOS and the document. At the start of a sequence stands the rest of a longer one, without an EOS.
Rotary positions go on through the sequence: attention depends on the distance of two tokens alone.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from iota.model.layer import Attention, Layer, run_layer, sdpa


def document_numbers(ids_BT: Tensor, eos_id: int) -> Tensor:
    """Number of each token's document in its sequence, int32 (B, T)."""
    return (ids_BT == eos_id).cumsum(-1, dtype=torch.int32)


def plain_layer(documents_BT: Tensor | None) -> Layer:
    """The layer of a pass by torch's own kernels; attention spans whole sequences where there is None."""
    if documents_BT is None:
        return run_layer
    return partial(run_layer, attention=attention_within(documents_BT))


def attention_within(documents_BT: Tensor) -> Attention:
    """Causal attention of one document after another.

    It takes no more memory than `sdpa`, and less time. A mask would be 256 MB in fp32 for 8,192 tokens, and
    torch's kernels would take twice as long with it as without (docs/benchmarks.md).
    """
    lengths = _lengths(documents_BT)

    def attention(q_BHTC: Tensor, k_BGTC: Tensor, v_BGTC: Tensor) -> Tensor:
        batch, heads, tokens, channels = q_BHTC.shape
        split = (torch.split(_joined(x), lengths, 2) for x in (q_BHTC, k_BGTC, v_BGTC))
        mixed = [sdpa(*document).transpose(1, 2) for document in zip(*split, strict=True)]
        return torch.cat(mixed, dim=1).view(batch, tokens, heads, channels).transpose(1, 2)

    return attention


def _lengths(documents_BT: Tensor) -> list[int]:
    """Tokens of each document, or part of one, over all sequences in order. It waits for the device."""
    begins_BT = torch.ones_like(documents_BT, dtype=torch.bool)
    begins_BT[:, 1:] = documents_BT[:, 1:] != documents_BT[:, :-1]
    starts = begins_BT.flatten().nonzero().flatten().tolist()
    return [stop - start for start, stop in zip(starts, [*starts[1:], documents_BT.numel()], strict=True)]


def _joined(x_BHTC: Tensor) -> Tensor:
    """All sequences as one, (1, H, B T, C)."""
    return x_BHTC.transpose(1, 2).flatten(0, 1).transpose(0, 1)[None]
