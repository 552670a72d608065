"""Files of tensors in the form of safetensors.

They are written one tensor after another. Their headers are checked before anything else reads them, since a
file may be hostile.

header length u64 LE | header (JSON: name -> dtype, shape, data_offsets) | tensors, without gaps
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

_LENGTH = struct.Struct("<Q")
_ENTRY_BYTES = 1024
"""Room in a header for one tensor, whose name has at most a few hundred characters."""
_SLACK_BYTES = 1 << 16
"""Room for the rest of a header, metadata included."""

_BYTES = {"F32": 4, "BF16": 2, "I8": 1, "U8": 1}
"""Bytes of an element, by the name of its dtype in a header."""
_WORDS = {"F32": "fp32", "BF16": "bf16", "I8": "int8", "U8": "uint8"}
"""The dtypes as people write them."""

Layout = Mapping[str, tuple[int, ...]]
"""Shapes of tensors, by name."""
Dtypes = Mapping[str, str]
"""Dtypes of those that are not fp32, by their names in a header."""
_ALL_FP32: Dtypes = {}


class TensorFileError(ValueError):
    """Bytes that are not a safetensors file of the expected tensors."""


@dataclass(frozen=True)
class TensorFile:
    """What a checked header says."""

    layout: Layout
    extents: dict[str, tuple[int, int]]
    """First byte of each tensor in the file, and the byte after its last."""
    metadata: dict[str, str]


def check_tensors(source: bytes | Path, *allowed: Layout, dtypes: Dtypes = _ALL_FP32) -> TensorFile:
    """Check that a file holds exactly the tensors of one of the `allowed` layouts.

    Those that `dtypes` does not name are fp32.
    Names, shapes, dtypes and sizes are checked, and that the tensors fill the file without gap or overlap.
    Values are not read. The JSON that is parsed is bounded by the largest layout.

    Raises TensorFileError, also for a file that cannot be read.
    """
    found, size, total = _read_header(source, max(map(len, allowed)))
    metadata = found.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise TensorFileError("its metadata is not text")
    expected = next((layout for layout in allowed if layout.keys() == found.keys()), None)
    if expected is None:
        wrong = sorted(found.keys() ^ allowed[-1].keys())
        raise TensorFileError(f"it has other tensors than expected: {', '.join(map(repr, wrong[:5]))}"[:300])
    for name, shape in expected.items():
        dtype = _dtype(name, dtypes)
        if not _is_tensor(found[name], dtype, shape):
            raise TensorFileError(f"tensor {name!r} is not {_WORDS[dtype]} of shape {list(shape)}")
    sizes = [_size(name, shape, dtypes) for name, shape in expected.items()]
    _check_extents([found[name]["data_offsets"] for name in expected], sizes, size)
    first = total - size
    extents = {
        name: (first + start, first + stop)
        for name, (start, stop) in ((name, found[name]["data_offsets"]) for name in expected)
    }
    return TensorFile(expected, extents, metadata)


def write_tensors(
    file: BinaryIO,
    layout: Layout,
    metadata: Mapping[str, str],
    data: Iterable[memoryview],
    dtypes: Dtypes = _ALL_FP32,
) -> None:
    """Write tensors as a safetensors file, one after another, so that none is copied in memory.

    `data` has the bytes of each tensor, in the order of `layout`. Those that `dtypes` does not name are
    fp32. Raises OSError.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, shape in layout.items():
        start, end = end, end + _size(name, shape, dtypes)
        header[name] = {"dtype": _dtype(name, dtypes), "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH.size)  # so that the tensors are aligned
    file.write(_LENGTH.pack(len(text)) + text)
    for view in data:
        file.write(view)


def _read_header(source: bytes | Path, entries: int) -> tuple[dict[str, Any], int, int]:
    """The header's entries, the bytes of data after it, and those of the whole file."""
    limit = _ENTRY_BYTES * entries + _SLACK_BYTES
    try:
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
            size = file.seek(0, io.SEEK_END) - _LENGTH.size
            file.seek(0)
            if size < 0:
                raise TensorFileError("it is shorter than a header")
            length = int(_LENGTH.unpack(file.read(_LENGTH.size))[0])
            if not 0 < length <= min(limit, size):
                raise TensorFileError(f"its header claims {length} of {size} bytes, at most {limit}")
            text = file.read(length)
    except OSError as error:
        raise TensorFileError(f"it cannot be read: {error.strerror}") from error
    try:
        found = json.loads(text, object_pairs_hook=_without_repeats)
    except TensorFileError:
        raise
    except (ValueError, RecursionError) as error:
        raise TensorFileError("its header is not JSON") from error
    if not isinstance(found, dict):
        raise TensorFileError("its header is not an object")
    return found, size - length, size + _LENGTH.size


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise TensorFileError("its header names something twice")
    return found


def _dtype(name: str, dtypes: Dtypes) -> str:
    return str(dtypes.get(name, "F32"))


def _size(name: str, shape: tuple[int, ...], dtypes: Dtypes) -> int:
    return _BYTES[_dtype(name, dtypes)] * math.prod(shape)


def _is_tensor(entry: Any, dtype: str, shape: tuple[int, ...]) -> bool:
    # `type` and not `isinstance`, because True and 1.0 equal 1.
    return (
        isinstance(entry, dict)
        and entry.keys() == {"dtype", "shape", "data_offsets"}
        and entry["dtype"] == dtype
        and isinstance(entry["shape"], list)
        and all(type(length) is int for length in entry["shape"])
        and entry["shape"] == list(shape)
        and isinstance(entry["data_offsets"], list)
        and len(entry["data_offsets"]) == 2
        and all(type(offset) is int for offset in entry["data_offsets"])
    )


def _check_extents(offsets: list[list[int]], sizes: list[int], size: int) -> None:
    end = 0
    for (start, stop), wanted in sorted(zip(offsets, sizes, strict=True)):
        if start != end or stop - start != wanted:
            raise TensorFileError("its tensors overlap, leave gaps or have other sizes than their shapes")
        end = stop
    if end != size:
        raise TensorFileError(f"it holds {size} bytes of data where its tensors have {end}")
