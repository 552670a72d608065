"""Field types that documents share: bounded integers, fractions, digests."""

from __future__ import annotations

from typing import Annotated, Final, TypeVar

from pydantic import FailFast, Field

MAX_INTEGER: Final = 2**53 - 1
"""Largest integer that RFC 8785 allows: JSON readers may store numbers as float64."""

Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Positive = Annotated[int, Field(gt=0, le=MAX_INTEGER)]
Small = Annotated[int, Field(ge=0, lt=2**31)]
"""An epoch, a step, an index: it fits a signed 32-bit integer."""
Fraction = Annotated[float, Field(ge=0, le=1)]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""32 bytes in hex: a digest."""

_T = TypeVar("_T")
Listed = Annotated[tuple[_T, ...], FailFast()]
"""A list that only the size of its message bounds. The first wrong entry ends the parse: pydantic keeps an
error for each otherwise, and together they would take many times the memory of the message."""
