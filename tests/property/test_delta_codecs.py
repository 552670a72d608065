"""Codecs of pseudo-gradients on any input: they make nothing larger, and damage is refused or finite."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from iota.objects.delta_sizes import delta_bytes, unit
from iota.outer import open_delta_codec
from iota.outer.error_feedback import encode_part, read_feedback, write_feedback
from iota.outer.merged_part import read_merged, write_merged
from iota.outer.partition import PartError, Vector, split
from iota.spec import OuterCodec, OuterSpec

CODECS = list(OuterCodec)
VALUES = st.floats(-(2.0**60), 2.0**60, width=32)
VECTORS = st.integers(1, 9000).flatmap(
    lambda size: st.one_of(
        arrays.arrays(np.float32, size, elements=VALUES, fill=st.just(np.float32(0))),
        st.integers(0, 2**32 - 1).map(
            lambda seed: np.random.default_rng(seed).standard_t(2, size).astype(np.float32)
        ),
    )
)
SLACK = 1 + 1e-5


def _grows(codec: OuterCodec, before: Vector, after: Vector) -> bool:
    """Whether the largest magnitude or the L2 norm of any of the codec's units has grown."""
    for one, other in zip(split(before, unit(codec)), split(after, unit(codec)), strict=True):
        x, y = one.astype(np.float64), other.astype(np.float64)
        if np.abs(y).max() > np.abs(x).max() * SLACK or np.linalg.norm(y) > np.linalg.norm(x) * SLACK:
            return True
    return False


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=60, deadline=None)
@given(part=VECTORS)
def test_neither_what_is_sent_nor_what_is_left_is_larger_than_what_was_encoded(
    codec: OuterCodec, part: Vector
) -> None:
    code = open_delta_codec(codec)
    data = code.encode(part)
    assert len(data) == delta_bytes(codec, part.size)
    sent = code.decode(data, part.size)
    assert sent.dtype == np.float32
    assert not _grows(codec, part, sent)
    assert not _grows(codec, part, part - sent)
    _, left = encode_part(OuterSpec(codec=codec), part, None)
    if left is not None:
        assert not _grows(codec, part, left)
        assert np.array_equal(read_feedback(write_feedback(left), part.size), left)


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=60, deadline=None)
@given(part=VECTORS, at=st.integers(0), flip=st.integers(1, 255))
def test_a_damaged_byte_is_refused_or_gives_finite_values(
    codec: OuterCodec, part: Vector, at: int, flip: int
) -> None:
    data = bytearray(open_delta_codec(codec).encode(part))
    data[at % len(data)] ^= flip
    _refused_or_finite(codec, bytes(data), part.size)


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=60, deadline=None)
@given(elements=st.integers(1, 9000), seed=st.integers(0, 2**32 - 1), longer=st.integers(-2, 2))
def test_garbage_is_refused_or_gives_finite_values(
    codec: OuterCodec, elements: int, seed: int, longer: int
) -> None:
    size = max(0, delta_bytes(codec, elements) + longer)
    _refused_or_finite(codec, np.random.default_rng(seed).bytes(size), elements)


def _refused_or_finite(codec: OuterCodec, data: bytes, elements: int) -> None:
    try:
        found = open_delta_codec(codec).decode(data, elements)
    except PartError:
        return
    assert found.shape == (elements,)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("codec", CODECS)
@settings(max_examples=60, deadline=None)
@given(part=VECTORS, at=st.integers(0), flip=st.integers(0, 255))
def test_a_merged_part_with_a_damaged_byte_is_refused_or_finite(
    codec: OuterCodec, part: Vector, at: int, flip: int
) -> None:
    data = bytearray(write_merged(codec, part))
    data[at % len(data)] ^= flip
    try:
        found = read_merged(codec, bytes(data), part.size)
    except PartError:
        return
    assert np.isfinite(found).all()
    assert flip or found.tobytes() == part.tobytes()
