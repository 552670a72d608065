"""Each codec of pseudo-gradients equals a plain reference that is written element by element, to the bit."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest

from iota.objects.delta_sizes import delta_bytes
from iota.outer import open_delta_codec
from iota.outer.error_feedback import encode_part, read_feedback, write_feedback
from iota.outer.partition import NotFinite, PartError, Vector, split
from iota.spec import OuterCodec, OuterSpec

LOSSY = [OuterCodec.INT8, OuterCodec.SPARSE, OuterCodec.SPARSE64]
F = np.float32


def vector(size: int, seed: int = 0) -> Vector:
    """Heavy-tailed values of both signs, with zeros and equal magnitudes among them."""
    drawn = np.random.default_rng(seed)
    found = drawn.standard_t(3, size).astype(np.float32) * F(1e-3)
    found[drawn.random(size) < 0.1] = 0.0
    found[drawn.random(size) < 0.1] = F(2e-3)
    found[drawn.random(size) < 0.1] = F(-2e-3)
    return found


# ---- the reference ---------------------------------------------------------------------------------


def _short(value: np.float32) -> np.float32:
    """bf16, toward zero: the lower half of the bits is cut off."""
    [bits] = struct.unpack("<I", struct.pack("<f", value))
    return F(struct.unpack("<f", struct.pack("<I", bits & 0xFFFF0000))[0])


def _upper_half(value: np.float32) -> bytes:
    return struct.pack("<f", value)[2:]


def plain_int8(part: Vector) -> bytes:
    """`int8` as its module describes it, one value after another."""
    scales, codes = b"", b""
    for block in split(part, 256):
        scale = _short(max(abs(x) for x in block) / F(127))
        scales += _upper_half(scale)
        for x in block:
            code = max(-127, min(127, math.trunc(float(x / scale)))) if scale else 0
            codes += struct.pack("b", code)
    return scales + codes


def _sum(values: list[np.float32]) -> np.float32:
    """Of a power of two of values, each with the one that stands half of the rest further on."""
    while len(values) > 1:
        half = len(values) // 2
        values = [values[i] + values[half + i] for i in range(half)]
    return values[0]


def plain_sparse(part: Vector, count: int) -> bytes:
    """A sparse codec as its module describes it, one value after another."""
    scales, indices, codes = b"", [], []
    for chunk in split(part, 4096):
        values = [*chunk, *[F(0)] * (4096 - len(chunk))]
        kept = sorted(sorted(range(4096), key=lambda i: (-abs(values[i]), i))[:count])
        sizes = [abs(values[i]) for i in kept]
        mean = _sum(sizes) / F(count)
        above = [size > mean for size in sizes]
        lower = _sum([F(0) if a else s for a, s in zip(above, sizes, strict=True)]) / F(count - sum(above))
        upper = _sum([s if a else F(0) for a, s in zip(above, sizes, strict=True)]) / F(max(1, sum(above)))
        scales += _upper_half(lower) + _upper_half(upper)
        indices += kept
        codes += [2 * bool(np.signbit(values[i])) + a for i, a in zip(kept, above, strict=True)]
    return scales + _bits(indices, 12) + _bits(codes, 2)


def _bits(numbers: list[int], width: int) -> bytes:
    """The numbers one after another, each from its lowest bit on, eight bits in a byte likewise."""
    bits = [number >> at & 1 for number in numbers for at in range(width)]
    return bytes(sum(bit << at for at, bit in enumerate(bits[i : i + 8])) for i in range(0, len(bits), 8))


PLAIN: dict[OuterCodec, Callable[[Vector], bytes]] = {
    OuterCodec.INT8: plain_int8,
    OuterCodec.SPARSE: partial(plain_sparse, count=256),
    OuterCodec.SPARSE64: partial(plain_sparse, count=64),
}
SIZES = [1, 63, 64, 65, 255, 256, 257, 4096, 4097, 12_345]


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("size", SIZES)
def test_a_codec_gives_the_bytes_of_its_plain_reference(codec: OuterCodec, size: int) -> None:
    part = vector(size, size)
    data = open_delta_codec(codec).encode(part)
    assert data == PLAIN[codec](part)
    assert len(data) == delta_bytes(codec, size)


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("size", [600_000, 4096 * 128 * 2 + 7])
def test_a_partition_of_several_batches_is_encoded_as_its_pieces_are(codec: OuterCodec, size: int) -> None:
    part, code = vector(size), open_delta_codec(codec)
    piece = 4096 * 16
    decoded = [code.decode(code.encode(one), one.size) for one in split(part, piece)]
    assert np.array_equal(code.decode(code.encode(part), size), np.concatenate(decoded))


@pytest.mark.parametrize(("codec", "kept"), [(OuterCodec.SPARSE, 256), (OuterCodec.SPARSE64, 64)])
def test_a_sparse_codec_keeps_the_largest_and_of_equal_ones_the_first(codec: OuterCodec, kept: int) -> None:
    part = np.zeros(4096, np.float32)
    part[1000:1300] = -1.0
    part[4000] = 3.0
    code = open_delta_codec(codec)
    decoded = code.decode(code.encode(part), 4096)
    assert np.flatnonzero(decoded).tolist() == [*range(1000, 999 + kept), 4000]
    assert decoded[4000] == 3.0
    assert set(decoded[1000 : 999 + kept]) == {F(-1.0)}


def test_sparse_is_36_or_141_times_smaller_than_fp32_and_int8_4_times() -> None:
    size = 1 << 22
    raw = delta_bytes(OuterCodec.NONE, size)
    assert round(raw / delta_bytes(OuterCodec.SPARSE, size)) == 36
    assert round(raw / delta_bytes(OuterCodec.SPARSE64, size)) == 141
    assert 3.9 < raw / delta_bytes(OuterCodec.INT8, size) < 4.0


# ---- damage ----------------------------------------------------------------------------------------


def _damaged(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Bytes that no encoder gives, and how the error names them."""
    yield "bytes", data[:-1]
    yield "bytes", data + b"\0"
    yield "NaN", b"\xc0\x7f" + data[2:]
    yield "NaN", b"\x80\x7f" + data[2:]
    yield "negative", b"\x00\xbf" + data[2:]


@pytest.mark.parametrize("codec", LOSSY)
def test_other_sizes_and_scales_that_are_no_scales_are_refused(codec: OuterCodec) -> None:
    code = open_delta_codec(codec)
    for what, data in _damaged(code.encode(vector(5000))):
        with pytest.raises(PartError, match=what):
            code.decode(data, 5000)


@pytest.mark.parametrize("codec", [OuterCodec.SPARSE, OuterCodec.SPARSE64])
def test_indices_that_are_not_ascending_or_beyond_the_partition_are_refused(codec: OuterCodec) -> None:
    code = open_delta_codec(codec)
    data = bytearray(code.encode(vector(4096)))
    data[4:7] = data[7:10]  # the first two indices are those after them
    with pytest.raises(PartError, match="ascending"):
        code.decode(bytes(data), 4096)
    data = bytearray(code.encode(vector(4096)))
    with pytest.raises(PartError, match="beyond"):
        code.decode(bytes(data), 100)


def test_a_code_below_those_that_are_written_and_a_scale_that_overflows_are_refused() -> None:
    code = open_delta_codec(OuterCodec.INT8)
    data = bytearray(code.encode(vector(256)))
    data[2] = 0x80
    with pytest.raises(PartError, match="below -127"):
        code.decode(bytes(data), 256)
    data[:3] = b"\x7f\x7f\x01"
    with pytest.raises(NotFinite):
        code.decode(bytes(data), 256)


# ---- error feedback --------------------------------------------------------------------------------


def plain_feedback(outer: OuterSpec, change: Vector, feedback: Vector | None) -> tuple[bytes, Vector]:
    """x <- beta·f + D and f <- x - D^, one element after another."""
    before = np.zeros_like(change) if feedback is None else feedback
    x = np.array([F(outer.beta) * f + d for f, d in zip(before, change, strict=True)], np.float32)
    data = PLAIN[outer.codec](x)
    sent = open_delta_codec(outer.codec).decode(data, x.size)
    return data, np.array([_short(a - b) for a, b in zip(x, sent, strict=True)], np.float32)


@pytest.mark.parametrize("codec", LOSSY)
def test_error_feedback_goes_on_after_a_restart_as_without_one(codec: OuterCodec) -> None:
    outer, size = OuterSpec(codec=codec), 5000
    feedback: Vector | None = None
    expected: Vector | None = None
    for epoch in range(4):
        change = vector(size, epoch)
        data, feedback = encode_part(outer, change, feedback)
        reference, expected = plain_feedback(outer, change, expected)
        assert data == reference
        assert feedback is not None
        assert feedback.tobytes() == expected.tobytes()
        feedback = read_feedback(write_feedback(feedback), size)  # what a process leaves on its disk


@pytest.mark.parametrize("codec", LOSSY)
def test_what_is_sent_adds_up_to_what_was_to_be_sent(codec: OuterCodec) -> None:
    """With beta 0.95 and the same change each time, what arrives is the change, less what decays."""
    outer, size = OuterSpec(codec=codec), 4096
    change, sent, feedback = vector(size), np.zeros(size), None
    for _ in range(400):
        data, feedback = encode_part(outer, change, feedback)
        sent += open_delta_codec(codec).decode(data, size)
    mean = sent / 400
    # The half that is largest: an element that is never sent decays as fast as it grows.
    largest = np.argsort(-np.abs(change))[:500]
    ratio = float(mean[largest] @ change[largest]) / float(change[largest] @ change[largest])
    assert 0.3 < ratio < 1.001


def test_none_sends_everything_and_keeps_nothing() -> None:
    part = vector(100)
    data, left = encode_part(OuterSpec(), part, None)
    assert left is None
    assert np.array_equal(open_delta_codec(OuterCodec.NONE).decode(data, 100), part)
