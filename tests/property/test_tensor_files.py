"""Changed bytes of parts, bases, snapshots and frames give the typed error or a value, and nothing else.

Each parser is given valid bytes with random changes, and headers that a hostile sender would write.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iota.compute.errors import StateError
from iota.compute.state import StageState, load_state, state_bytes, zero_moments
from iota.model.initial import initial_weights
from iota.model.weight_dtype import as_weights
from iota.objects import part_sizes
from iota.outer import open_delta_codec
from iota.outer.base import base_parts, initial_base, read_base
from iota.outer.partition import PartError
from iota.spec import OuterCodec, RunSpec
from iota.wire.frame import FrameError
from tests.support import samples
from tests.support.small_spec import small_spec

SPEC = small_spec()
SMALL = small_spec(optimizer={"lr": 1e-3, "kind": "adamw", "moments": "int8"}, precision="bf16-sr")
STAGE = 1
SIZES = part_sizes(SPEC, STAGE)


def _state(spec: RunSpec) -> bytes:
    weights = as_weights(spec, initial_weights(spec, STAGE))
    return state_bytes(StageState(weights, zero_moments(spec, STAGE)))


@dataclass(frozen=True)
class Parser:
    """A parser of a format, bytes that it takes, and its one error."""

    name: str
    valid: bytes
    parse: Callable[[bytes], object]
    error: type[Exception]


BASE = base_parts(SPEC, initial_base(SPEC, STAGE))
FRAME = next(iter(samples.FRAMES.values()))
PARSERS = [
    Parser("part", np.zeros(SIZES[0], "<f4").tobytes(),
           lambda data: open_delta_codec(OuterCodec.NONE).decode(data, SIZES[0]), PartError),
    Parser("base", BASE[0], lambda data: read_base(SPEC, STAGE, [data, *BASE[1:]]), PartError),
    Parser("snapshot", _state(SPEC), lambda data: load_state(data, SPEC, STAGE), StateError),
    Parser("small snapshot", _state(SMALL), lambda data: load_state(data, SMALL, STAGE), StateError),
    Parser("frame", samples.frame_bytes(FRAME),
           lambda data: samples.read_frame(data, FRAME.header.dtype), FrameError),
]  # fmt: skip
EACH = pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
TENSOR_FILES = [parser for parser in PARSERS if parser.name in ("base", "snapshot", "small snapshot")]


def read(parser: Parser, data: bytes) -> None:
    """Parse; any error but the parser's own fails the test."""
    with suppress(parser.error):
        parser.parse(data)


@EACH
def test_the_bytes_themselves_are_taken(parser: Parser) -> None:
    parser.parse(parser.valid)


@EACH
@settings(max_examples=60, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 4095), st.binary(min_size=1, max_size=9)), min_size=1))
def test_changed_bytes_give_the_typed_error_or_a_value(
    parser: Parser, changes: list[tuple[int, bytes]]
) -> None:
    """Changes lie in the first 4 KiB, where the structure is."""
    data = bytearray(parser.valid)
    for at, new in changes:
        data[at : at + len(new)] = new
    read(parser, bytes(data))


@EACH
@settings(max_examples=40, deadline=None)
@given(cut=st.floats(0, 1, exclude_max=True), more=st.binary(max_size=64))
def test_bytes_cut_short_or_longer_give_the_typed_error(parser: Parser, cut: float, more: bytes) -> None:
    short = parser.valid[: int(cut * len(parser.valid))]
    with pytest.raises(parser.error):
        parser.parse(short)
    read(parser, short + more)


@EACH
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=300))
def test_any_bytes_give_the_typed_error(parser: Parser, data: bytes) -> None:
    with pytest.raises(parser.error):
        parser.parse(data)


# ---- headers of tensor files --------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
DTYPES = [
    "BF16", "F16", "F64", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F4", "F6_E2M3", "I8", "U8", "I64", "U64", "BOOL"
]  # fmt: skip


def header_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def with_header(text: bytes, values: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text + values


@pytest.mark.parametrize("parser", TENSOR_FILES, ids=lambda parser: parser.name)
@pytest.mark.parametrize("dtype", DTYPES)
def test_another_dtype_is_refused(parser: Parser, dtype: str) -> None:
    header, values = header_of(parser.valid)
    next(entry for name, entry in header.items() if name != "__metadata__")["dtype"] = dtype
    with pytest.raises(parser.error):
        parser.parse(with_header(json.dumps(header).encode(), values))


@pytest.mark.parametrize("parser", TENSOR_FILES, ids=lambda parser: parser.name)
@settings(max_examples=80, deadline=None)
@given(field=st.sampled_from(["dtype", "shape", "data_offsets", None]), value=JSON)
def test_a_field_of_any_other_value_is_refused(parser: Parser, field: str | None, value: Any) -> None:
    header, values = header_of(parser.valid)
    name = min(header)
    if field is None:
        header[name] = value
    else:
        header[name][field] = value
    with pytest.raises(parser.error):
        parser.parse(with_header(json.dumps(header).encode(), values))


@pytest.mark.parametrize("parser", TENSOR_FILES, ids=lambda parser: parser.name)
def test_a_repeated_name_is_refused(parser: Parser) -> None:
    header, values = header_of(parser.valid)
    text = json.dumps(header)
    name = min(header)
    again = text[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}"
    with pytest.raises(parser.error, match="twice"):
        parser.parse(with_header(again.encode(), values))


@pytest.mark.parametrize("parser", TENSOR_FILES, ids=lambda parser: parser.name)
@pytest.mark.parametrize("move", [(0, -4), (4, 4), (-4, 0), (1 << 62, 1 << 62)])
def test_extents_with_gaps_or_overlaps_are_refused(parser: Parser, move: tuple[int, int]) -> None:
    header, values = header_of(parser.valid)
    entry = max((e for n, e in header.items() if n != "__metadata__"), key=lambda e: e["data_offsets"][0])
    entry["data_offsets"] = [a + b for a, b in zip(entry["data_offsets"], move, strict=True)]
    with pytest.raises(parser.error):
        parser.parse(with_header(json.dumps(header).encode(), values))


@pytest.mark.parametrize("parser", TENSOR_FILES, ids=lambda parser: parser.name)
def test_a_header_of_100_mb_is_refused_unparsed(parser: Parser) -> None:
    header, values = header_of(parser.valid)
    text = json.dumps(header).encode()
    with pytest.raises(parser.error, match="claims"):
        parser.parse(with_header(text + b" " * 100_000_000, values))
