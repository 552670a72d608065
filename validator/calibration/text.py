"""Tokens to calibrate on: the bytes of the Python standard library's source code."""

from __future__ import annotations

import sysconfig
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from iota.compute.tokens import Tokens
from iota.spec import RunSpec

_BYTES: Final = 4 << 20
"""Bytes of text, in the order of the files' names."""


def tokens(spec: RunSpec, number: int, step: int, index: int) -> Tokens:
    """Tokens of a microbatch of segment `number`: sequences from places that follow from the numbers.

    Raises ValueError where the vocabulary is smaller than that of bytes.
    """
    if spec.model.vocab_size < 256:
        raise ValueError("calibration is on bytes: give a model with model.vocab_size of at least 256")
    text_N, length = _text(), spec.data.sequence_length + 1
    places = np.random.default_rng((number, step, index)).integers(
        0, len(text_N) - length, spec.data.sequences
    )
    return np.stack([text_N[place : place + length] for place in places]).astype(np.int64)


@cache
def _text() -> NDArray[np.uint8]:
    found, size = [], 0
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        if size < _BYTES:
            found.append(path.read_bytes())
            size += len(found[-1])
    return np.frombuffer(b"".join(found)[:_BYTES], np.uint8)
