"""Moments as they are kept: fp32, bf16 or 8 bits, read and written piece by piece as fp32 values.

What is written is rounded, and the values that are kept are given back: an update is made from these, so that
it follows from the state that a replica commits to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Protocol

import torch
from torch import Tensor

from iota.codec.shapes import Shapes
from iota.compute.compiled import fused
from iota.compute.moment_codes import decode, encode
from iota.compute.rounding import Rounding, bits
from iota.model.moment_layout import BLOCK, SCALE, MomentForm, moment_forms
from iota.model.tensor_dtype import TensorDtype
from iota.spec import OptimizerSpec

TORCH_DTYPES: Final[Mapping[TensorDtype, torch.dtype]] = {
    TensorDtype.F32: torch.float32,
    TensorDtype.BF16: torch.bfloat16,
    TensorDtype.I8: torch.int8,
    TensorDtype.U8: torch.uint8,
}
_PURPOSE: Final = "moments"
_DECODED: Final = 1 << 20
"""Elements that are decoded at a time where a whole tensor is. It is a multiple of `BLOCK`."""


class Moment(Protocol):
    """One kind of moments of one parameter. A piece is a slice of its elements that starts at a block."""

    def read(self, piece: slice) -> Tensor:
        """The values of a piece, fp32, to be changed and written back: fp32 moments are no copy."""
        ...

    def write(self, piece: slice, values_N: Tensor, rounding: Rounding | None) -> Tensor:
        """Keep the values of a piece, rounded. Returns what is kept, fp32.

        `rounding` is that of the STEP; None where moments are fp32.
        """
        ...


class _Fp32:
    def __init__(self, values: Tensor) -> None:
        self._values_N = values.view(-1)

    def read(self, piece: slice) -> Tensor:
        return self._values_N[piece]

    def write(self, piece: slice, values_N: Tensor, rounding: Rounding | None) -> Tensor:
        own_N = self._values_N[piece]
        if own_N.data_ptr() != values_N.data_ptr():
            own_N.copy_(values_N)
        return own_N


class _Bf16:
    def __init__(self, name: str, values: Tensor) -> None:
        self._name, self._values_N = name, values.view(-1)

    def read(self, piece: slice) -> Tensor:
        return self._values_N[piece].float()

    def write(self, piece: slice, values_N: Tensor, rounding: Rounding | None) -> Tensor:
        assert rounding is not None
        rounding.of(_PURPOSE).write_piece(self._name, piece, values_N, self._values_N[piece])
        return self.read(piece)


class _EightBits:
    def __init__(self, name: str, codes: Tensor, scale_B: Tensor) -> None:
        self._name, self._codes_N, self._scale_B = name, codes.view(-1), scale_B

    def read(self, piece: slice) -> Tensor:
        codes_N, scale_B = self._codes_N[piece], self._scale_B[self._of(piece)]
        return fused(decode, codes_N.device)(codes_N, scale_B)

    def write(self, piece: slice, values_N: Tensor, rounding: Rounding | None) -> Tensor:
        assert rounding is not None
        words_3 = rounding.of(_PURPOSE).words(self._name, piece, values_N.device)
        signed = self._codes_N.dtype is torch.int8
        codes_N, scale_B = fused(_encoded, values_N.device)(values_N, words_3, signed)
        self._codes_N[piece], self._scale_B[self._of(piece)] = codes_N, scale_B
        return self.read(piece)

    @staticmethod
    def _of(piece: slice) -> slice:
        """The blocks of a piece."""
        return slice(piece.start // BLOCK, -(-piece.stop // BLOCK))


def _encoded(values_N: Tensor, words_3: Tensor, signed: bool) -> tuple[Tensor, Tensor]:
    return encode(values_N, bits(words_3, values_N), signed=signed)


def open_moment(tensors: Mapping[str, Tensor], name: str) -> Moment:
    """The moments `name` ("<kind>.<parameter>") of a state's moments, whose tensors it reads and writes."""
    values = tensors[name]
    if values.dtype is torch.float32:
        return _Fp32(values)
    scale = scale_of(name, values)
    return _Bf16(name, values) if scale is None else _EightBits(name, values, tensors[scale])


def make_moments(forms: Mapping[str, MomentForm], device: torch.device) -> dict[str, Tensor]:
    """Moments of zero in these forms."""
    return {
        name: torch.zeros(form.shape, dtype=TORCH_DTYPES[form.dtype], device=device)
        for name, form in forms.items()
    }


def encoded(
    spec: OptimizerSpec, shapes: Shapes, values: Mapping[str, Tensor], rounding: Rounding
) -> dict[str, Tensor]:
    """fp32 moments, of parameters with these shapes, as a run keeps them, sorted by name."""
    device = next(iter(values.values())).device if values else torch.device("cpu")
    made = make_moments(moment_forms(spec, shapes), device)
    for name, tensor in values.items():
        whole_N = tensor.reshape(-1)
        moment = open_moment(made, name)
        for low in range(0, whole_N.numel(), _DECODED):
            piece = slice(low, min(low + _DECODED, whole_N.numel()))
            moment.write(piece, whole_N[piece], rounding)
    return made


def decoded_moment(moments: Mapping[str, Tensor], name: str) -> Tensor:
    """The values of one of the moments, fp32; those that are fp32 as they are."""
    kept = moments[name]
    if kept.dtype is torch.float32:
        return kept
    moment, found = open_moment(moments, name), torch.empty_like(kept, dtype=torch.float32)
    flat_N = found.view(-1)
    for low in range(0, flat_N.numel(), _DECODED):
        piece = slice(low, min(low + _DECODED, flat_N.numel()))
        flat_N[piece] = moment.read(piece)
    return found


def is_scale(name: str) -> bool:
    """Whether a tensor of a state's moments has the scales of another one."""
    return name.partition(".")[0].endswith(SCALE)


def scale_of(name: str, kept: Tensor) -> str | None:
    """The name of the scales of `kept`, which are the moments `name`; None where there are none."""
    kind, _, parameter = name.partition(".")
    return f"{kind}{SCALE}.{parameter}" if kept.element_size() == 1 else None
