"""What a file is: its format and compression, by name and by its first bytes."""

from __future__ import annotations

import codecs
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias, cast

SNIFFED_BYTES = 1 << 16
"""Bytes from the beginning of a file that decide what it is."""
BUFFER_BYTES = 1 << 20

Readable: TypeAlias = "io.BufferedReader[io.RawIOBase]"

_COMPRESSIONS = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes, and the name that pyarrow has for it."""
_COMPRESSED_SUFFIXES = frozenset({".gz", ".bz2", ".zst"})
_PARQUET = b"PAR1"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Format(StrEnum):
    """Formats that are read."""

    LINES = "JSON lines"
    JSON = "JSON"
    CSV = "CSV"
    PARQUET = "parquet"
    TEXT = "text"


_SUFFIXES = {
    ".jsonl": Format.LINES,
    ".ndjson": Format.LINES,
    ".json": Format.JSON,
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".parquet": Format.PARQUET,
}


@dataclass(frozen=True)
class FileKind:
    """A file's format, and its compression as pyarrow names it, or None."""

    format: Format
    compression: str | None


def file_kind(path: Path, encoding: str) -> FileKind | None:
    """What `path` is; None for a file that is no text.

    The first bytes decide about compression and parquet, then the name, without the suffix of a compression.
    What has another name is JSON lines if its first line is an object, and else text, unless it is binary.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        first = file.read(8)
    compression = next((name for magic, name in _COMPRESSIONS.items() if first.startswith(magic)), None)
    name = path.with_suffix("") if path.suffix.lower() in _COMPRESSED_SUFFIXES else path
    known = _SUFFIXES.get(name.suffix.lower())
    if first.startswith(_PARQUET) or known is Format.PARQUET:
        return FileKind(Format.PARQUET, compression)
    if known in (Format.LINES, Format.CSV):
        return FileKind(known, compression)
    with open_file(path, compression) as file:
        head = file.read(SNIFFED_BYTES)
    # JSON lines are often named .json. Other suffixes decide nothing: text is what can be read as text.
    found = Format.LINES if _is_object(head.split(b"\n", 1)[0]) else known or Format.TEXT
    return FileKind(found, compression) if known or _is_text(head, encoding) else None


@contextmanager
def open_file(path: Path, compression: str | None) -> Iterator[Readable]:
    """The bytes of `path`, decompressed. Reading raises OSError for damaged compression."""
    with path.open("rb", buffering=BUFFER_BYTES) as raw:
        if compression is None:
            yield cast("Readable", raw)
            return
        import pyarrow

        stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(raw), compression)
        with io.BufferedReader(cast("io.RawIOBase", stream), BUFFER_BYTES) as buffered:
            yield buffered


def check_head(head: bytes) -> None:
    """Refuse rows that begin with UTF-16's byte order mark. Raises `ValueError` with a hint."""
    if head.startswith(_UTF16):
        raise ValueError(f"is not utf-8 at byte 0: {encoding_hint(head)}")


def encoding_hint(head: bytes) -> str:
    """What to do about a file that begins with `head` and is not UTF-8."""
    if head.startswith(_UTF16):
        return "it begins like UTF-16: give --encoding utf-16"
    return "if it is text, give its --encoding (for instance latin-1)"


def _is_text(head: bytes, encoding: str) -> bool:
    """Whether `head` may be text. UTF-16 counts, so that it is refused with a hint and not skipped."""
    if head.startswith(_UTF16):
        return True
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head)
    except UnicodeDecodeError:
        # In another encoding, text has no NUL either.
        text = head.decode("latin-1")
    return "\0" not in text and not _control_characters(text)


def _control_characters(text: str) -> bool:
    """Whether more than one in a hundred is a control character that text does not use."""
    odd = sum(character < " " and character not in "\t\n\r\f\v\b\x1b" for character in text)
    return odd * 100 > len(text)


def _is_object(line: bytes) -> bool:
    try:
        return line.startswith(b"{") and isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
