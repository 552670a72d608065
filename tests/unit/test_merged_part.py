"""The bytes of a merged partition are exact in every codec, and what is none is refused."""

from __future__ import annotations

import numpy as np
import pytest

from iota.objects.delta_sizes import merged_bytes
from iota.outer.merged_part import read_merged, write_merged
from iota.outer.partition import NotFinite, PartError, Vector
from iota.spec import OuterCodec


def _merged(size: int) -> Vector:
    drawn = np.random.default_rng(size)
    found = drawn.standard_normal(size).astype(np.float32)
    found[drawn.random(size) < 0.9] = 0.0
    found[0] = -0.0
    return found


@pytest.mark.parametrize("codec", OuterCodec)
@pytest.mark.parametrize("size", [1, 7, 8, 9, 5000])
def test_a_merged_part_is_read_as_it_was_written_to_the_bit(codec: OuterCodec, size: int) -> None:
    merged = _merged(size)
    data = write_merged(codec, merged)
    assert read_merged(codec, data, size).tobytes() == merged.tobytes()
    assert len(data) <= merged_bytes(codec, size, 4096)


def test_a_sparse_merge_of_three_is_12_times_smaller_than_fp32() -> None:
    size = 1 << 22
    assert 4.5 < 4 * size / merged_bytes(OuterCodec.SPARSE, size, 3) < 4.7
    assert 12 < 4 * size / merged_bytes(OuterCodec.SPARSE64, size, 3) < 14


def test_what_is_no_sparse_merge_is_refused() -> None:
    data = write_merged(OuterCodec.SPARSE, _merged(13))
    for damaged in (data[:1], data[:-1], data + b"\0"):
        with pytest.raises(PartError, match="bytes"):
            read_merged(OuterCodec.SPARSE, damaged, 13)
    with pytest.raises(PartError, match="beyond"):
        read_merged(OuterCodec.SPARSE, data[:1] + bytes([data[1] | 0x80]) + data[2:], 13)
    with pytest.raises(NotFinite):
        read_merged(OuterCodec.SPARSE, data[:-4] + b"\0\0\xc0\x7f", 13)
