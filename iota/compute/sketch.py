"""Sketches: random projections to 16 numbers, which are comparable across device classes.

    sketch_j(x) = sum_i sign_j(i) · x_i / sqrt(n)

Signs are Rademacher variables from BLAKE3 of the key and the tensor's name. Element i is in row
i // 4096 and column i % 4096, and sign_j(i) is the product of a row's sign and a column's. The signs of
two elements are independent, so that E[sketch_j^2] = |x|^2 / n. A sketch of a billion values needs two
small matrix products instead of 16 billion sign bits. Sums are float64, so that their order does not
matter after rounding to fp32. They are computed in blocks on the tensor's device.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from blake3 import blake3
from torch import Tensor

from iota.compute.names import Sketch
from iota.protocol.receipts import SKETCH_SIZE

_COLUMNS = 4096
"""Part of the format: it decides the signs."""
_BLOCK_ROWS = 256
"""Rows that are converted to float64 at a time: 8 MiB."""


@dataclass(frozen=True)
class SketchKey:
    """The seed of an op's signs: its name without the attempt, so that repeated attempts are comparable."""

    run: str
    stage: int
    kind: str
    epoch: int
    step: int
    index: int = 0

    def stream(self, part: str) -> blake3:
        """A stream of random bytes for `part`: the columns, or the rows of one tensor."""
        names = ("iota/sketch/1", self.run, self.stage, self.kind, self.epoch, self.step, self.index, part)
        return blake3("\n".join(map(str, names)).encode())


def sketch(x: Tensor, key: SketchKey) -> Sketch:
    """Sketch of one tensor of any shape, in row-major order."""
    return to_sketch(project({"": x}, key), x.numel())


def project(tensors: Mapping[str, Tensor], key: SketchKey) -> Tensor:
    """The 16 signed sums of all tensors, float64 on their device, before the division by sqrt(n).

    Projection is linear: that of a difference is the difference of projections.
    """
    device = next((x.device for x in tensors.values()), torch.device("cpu"))
    total_J = torch.zeros(SKETCH_SIZE, dtype=torch.float64, device=device)
    columns_CJ = _signs(key.stream("columns"), _COLUMNS, device)
    for name in sorted(tensors):
        total_J += _project_one(tensors[name].detach().reshape(-1), columns_CJ, key.stream(f"rows\n{name}"))
    return total_J


def to_sketch(projection_J: Tensor, elements: int) -> Sketch:
    """Divide a projection by the root of the number of elements and round to fp32, on the host."""
    scaled = projection_J.cpu().numpy() / math.sqrt(max(1, elements))
    with np.errstate(over="ignore"):  # infinite then, which no receipt can claim
        return tuple(scaled.astype(np.float32).tolist())


def _project_one(x_N: Tensor, columns_CJ: Tensor, stream: blake3) -> Tensor:
    whole, rest = divmod(x_N.numel(), _COLUMNS)
    rows_RJ = _signs(stream, whole + (rest > 0), x_N.device)
    total_J = torch.zeros(SKETCH_SIZE, dtype=torch.float64, device=x_N.device)
    full_RC = x_N[: whole * _COLUMNS].view(whole, _COLUMNS)
    for first in range(0, whole, _BLOCK_ROWS):
        block_BC = full_RC[first : first + _BLOCK_ROWS].double()
        signs_BJ = rows_RJ[first : first + block_BC.shape[0]]
        total_J += ((block_BC @ columns_CJ) * signs_BJ).sum(0)
    if rest:
        total_J += (x_N[whole * _COLUMNS :].double() @ columns_CJ[:rest]) * rows_RJ[whole]
    return total_J


def _signs(stream: blake3, count: int, device: torch.device) -> Tensor:
    """Signs +1 and -1, float64 (count, 16), from two bytes of the stream for each row."""
    bits = np.unpackbits(np.frombuffer(stream.digest(length=2 * count), dtype=np.uint8))
    signs = torch.from_numpy(bits.reshape(count, SKETCH_SIZE).astype(np.float64) * 2 - 1)
    return signs.to(device, non_blocking=True)
