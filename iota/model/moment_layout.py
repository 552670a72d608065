"""The tensors in which a stage's moments are kept: names, shapes and number formats. No torch.

Moments of a parameter have torch's names: `exp_avg`, `exp_avg_sq` and `step` of AdamW, `momentum_buffer` of
Muon. `optimizer.moments` says in which format those of matrices are; those of vectors, and step counts, are
small, and always fp32. In int8 each has another tensor beside it, `<kind>_scale`: fp32, one for each `BLOCK`
elements in row-major order. What the codes mean is in `iota.compute.moment_codes`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from iota.codec.shapes import Shapes
from iota.model.tensor_dtype import TensorDtype
from iota.model.updates import uses_muon
from iota.spec import Moments, OptimizerKind, OptimizerSpec

BLOCK: Final = 256
"""Elements with one scale."""
SCALE: Final = "_scale"
"""What the kind of a scale ends in."""


@dataclass(frozen=True)
class MomentForm:
    """How one tensor is kept."""

    dtype: TensorDtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Bytes of the tensor."""
        return self.dtype.bytes * math.prod(self.shape)


def moment_kinds(spec: OptimizerSpec, name: str, dimensions: int) -> tuple[str, ...]:
    """The kinds of moments that a parameter has, without scales."""
    if spec.kind is OptimizerKind.SGD:
        return ()
    if uses_muon(spec, name, dimensions):
        return ("momentum_buffer",)
    return ("exp_avg", "exp_avg_sq", "step")


def moment_forms(spec: OptimizerSpec, weights: Shapes) -> dict[str, MomentForm]:
    """The moments of these weights, scales included, sorted by name. A step count has shape ()."""
    found: dict[str, MomentForm] = {}
    for name, shape in weights.items():
        kept = spec.moments if len(shape) >= 2 else Moments.FP32
        for kind in moment_kinds(spec, name, len(shape)):
            dtype = _dtype(kept, kind)
            found[f"{kind}.{name}"] = MomentForm(dtype, () if kind == "step" else shape)
            if dtype.bytes == 1:
                blocks = -(-math.prod(shape) // BLOCK)
                found[f"{kind}{SCALE}.{name}"] = MomentForm(TensorDtype.F32, (blocks,))
    return dict(sorted(found.items()))


def moment_bytes(spec: OptimizerSpec, weights: Shapes) -> int:
    """Bytes of all moments of these weights."""
    return sum(form.bytes for form in moment_forms(spec, weights).values())


def _dtype(kept: Moments, kind: str) -> TensorDtype:
    if kept is Moments.FP32 or kind == "step":
        return TensorDtype.F32
    if kept is Moments.BF16:
        return TensorDtype.BF16
    return TensorDtype.U8 if kind == "exp_avg_sq" else TensorDtype.I8
