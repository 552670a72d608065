"""Rows: which text a row holds, and the one rule for those that hold none."""

from __future__ import annotations

import codecs
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    import pyarrow

UTF8 = "utf-8"
MAX_ROW_BYTES = 64 << 20
"""Bound of a row, which is read into memory whole."""


class Skip(StrEnum):
    """Why a row or file was left out."""

    NULL = "null"
    NO_FIELD = "without the field"
    BLANK = "blank"
    BROKEN = "broken"
    NOT_TEXT = "not text"
    FILE = "files that are no text"


class Broken(NamedTuple):
    """A row that cannot be read; `what` continues the sentence "line 3 ..."."""

    what: str


class Missing(NamedTuple):
    """A row without the field; `fields` are those that hold text."""

    fields: tuple[str, ...]


class Row(NamedTuple):
    """A row of a file. `value` is what stands in its text field, or `Missing`, or `Broken`."""

    number: int
    """From 0."""
    begin: int
    end: int
    """Its bytes in the file, without compression. Exact for JSON lines in UTF-8; else for progress alone."""
    value: object


@dataclass(frozen=True)
class RowRules:
    """What is read from the rows of a source, and which rows may be left out.

    Raises `ValueError` for rules that contradict each other, and for an encoding that Python does not know.
    """

    field: str = "text"
    """Field, column, or dotted path into objects and structs."""
    skip_bad: bool = False
    """Leave out rows that are broken or hold something else than text, and count them."""
    strict: bool = False
    """Refuse what is left out (and counted) otherwise: rows without text, and files that are no text."""
    encoding: str = UTF8
    """Encoding of text files, JSON and CSV."""

    def __post_init__(self) -> None:
        if self.skip_bad and self.strict:
            raise ValueError("--strict refuses what --skip-bad leaves out: give one of them")
        try:
            "".encode(self.encoding)
        except LookupError:
            raise ValueError(f"there is no encoding {self.encoding!r}: give one that Python knows") from None
        object.__setattr__(self, "encoding", codecs.lookup(self.encoding).name)

    def text(self, value: object, where: str, skipped: Counter[str]) -> str | None:
        """The text of a row's `value`, or None if the row is left out, which `skipped` counts.

        Bytes are decoded as UTF-8. Raises `ValueError` for a row that must not be left out.
        """
        if isinstance(value, bytes):
            value = decoded(value)
        elif isinstance(value, str) and _lone_surrogate(value):
            value = Broken("holds a lone surrogate, which is no Unicode text")
        if isinstance(value, str):
            if value and not value.isspace():
                return value
            self._without(Skip.BLANK, where, skipped)
        elif value is None:
            self._without(Skip.NULL, where, skipped)
        elif isinstance(value, Missing):
            self._without(Skip.NO_FIELD, where, skipped)
        elif isinstance(value, Broken):
            self._bad(Skip.BROKEN, f"{where} {value.what}", skipped)
        else:
            kind, fields = _kind(value), [f"{self.field}.{inner}" for inner in text_fields(value)]
            remedy = f": give --text-field {fields[0]}" if fields else ""
            self._bad(Skip.NOT_TEXT, f"{where}: {self.field!r} is {kind}, not text{remedy}", skipped)
        return None

    def _without(self, reason: Skip, where: str, skipped: Counter[str]) -> None:
        if self.strict:
            raise ValueError(f"{where} has no text in {self.field!r} ({reason}), which --strict refuses")
        skipped[reason] += 1

    def _bad(self, reason: Skip, problem: str, skipped: Counter[str]) -> None:
        if not self.skip_bad:
            raise ValueError(f"{problem}; mend it, or leave such rows out with --skip-bad")
        skipped[reason] += 1


DEFAULT_RULES: Final = RowRules()


def decoded(data: bytes) -> str | Broken:
    """`data` as UTF-8, or what is wrong with it."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return Broken(f"is not UTF-8 at byte {error.start} (0x{data[error.start]:02x})")


def field_of(row: object, field: str) -> object:
    """What stands in `field` of a JSON row: by its whole name, else as a dotted path. Else `Missing`."""
    if isinstance(row, Mapping) and field in row:
        return row[field]
    value = row
    for name in field.split("."):
        if value is None:
            return None
        if not isinstance(value, Mapping) or name not in value:
            return Missing(tuple(text_fields(row)))
        value = value[name]
    return value


def text_fields(value: object) -> list[str]:
    """Dotted paths of the strings in a JSON object."""
    found: list[str] = []
    for name, inner in value.items() if isinstance(value, Mapping) else ():
        found += [str(name)] if isinstance(inner, str) else [f"{name}.{path}" for path in text_fields(inner)]
    return found


def check_column(schema: pyarrow.Schema, field: str) -> None:
    """Refuse a `field` that is no column of text or bytes.

    Raises:
        ValueError: it names the column's type, and the fields that hold text.
    """
    leaves = dict(_leaves(schema))
    found = leaves.get(field)
    if found is not None and _holds_text(found):
        return
    inner = [path for path, kind in leaves.items() if _holds_text(kind)]
    near = [path for path in inner if path.startswith(f"{field}.")] or inner
    remedy = f": give --text-field {near[0]}" + (f" (or {', '.join(near[1:4])})" if near[1:] else "")
    what = f"has a column {field!r} of {found}, not text" if found is not None else f"has no column {field!r}"
    raise ValueError(f"{what}{remedy if near else ', and none that holds text'}")


def _leaves(fields: Iterable[Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    import pyarrow

    for field in fields:
        yield prefix + field.name, field.type
        if pyarrow.types.is_struct(field.type):
            yield from _leaves(field.type.fields, f"{prefix}{field.name}.")


def _holds_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        kind = kind.value_type
    return any(
        is_kind(kind)
        for is_kind in (
            types.is_string,
            types.is_large_string,
            types.is_string_view,
            types.is_binary,
            types.is_large_binary,
            types.is_binary_view,
            types.is_null,
        )
    )


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", bool: "a boolean", int: "an integer", float: "a number"}
    return names.get(type(value), f"a {type(value).__name__}")


def _lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
