"""Number formats of a state's tensors. No torch."""

from __future__ import annotations

from enum import StrEnum


class TensorDtype(StrEnum):
    """A number format, by its name in the header of a safetensors file."""

    F32 = "F32"
    BF16 = "BF16"
    I8 = "I8"
    U8 = "U8"

    @property
    def bytes(self) -> int:
        """Bytes of an element."""
        return _BYTES[self]


_BYTES = {TensorDtype.F32: 4, TensorDtype.BF16: 2, TensorDtype.I8: 1, TensorDtype.U8: 1}
