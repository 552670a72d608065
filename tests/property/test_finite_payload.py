"""Payloads are judged by their bytes as their values would be, for every wire dtype."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from iota.codec.finite_payload import LARGEST_FINITE, MAX_MAGNITUDE, payload_is_finite
from iota.codec.wire_dtype import decode_wire, payload_tensor, wire_size
from iota.spec import WireDtype

SHAPE = (1, 2, 3)
PATTERNS = [
    b"\x00\x00\x80\x7f",
    b"\x00\x00\xc0\xff",
    b"\xff\xff\x7f\x7f",
    b"\x00\x00\x80\x3f",
    b"\x80\x80\x80\x80",
]


@settings(max_examples=300, deadline=None)
@given(dtype=st.sampled_from(WireDtype), data=st.data())
def test_a_payload_is_finite_where_its_values_are(dtype: WireDtype, data: st.DataObject) -> None:
    size = wire_size(SHAPE, dtype)
    random = st.binary(min_size=size, max_size=size)
    made = st.lists(st.sampled_from(PATTERNS), min_size=size, max_size=size).map(lambda p: b"".join(p)[:size])
    payload = data.draw(random | made)
    with np.errstate(all="ignore"):
        values = decode_wire(payload_tensor(payload), SHAPE, dtype).numpy()
        usable = bool((np.abs(values) <= MAX_MAGNITUDE).all())
    assert payload_is_finite(payload, SHAPE, dtype, LARGEST_FINITE) == bool(np.isfinite(values).all())
    found = payload_is_finite(payload, SHAPE, dtype)
    assert found == usable or np.isclose(np.abs(values).max(), MAX_MAGNITUDE, rtol=0.01)
