"""Types of settings with a text form of their own: sizes in bytes, paths with `~`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmg]?|[kmgt]i)b?", re.IGNORECASE)


def parse_bytes(value: object) -> object:
    """A size in bytes from text such as `4GiB`, `500MB` or `1048576`; other values unchanged.

    Raises:
        ValueError: the text is not a size.
    """
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is no size: write 500MB, 4GiB or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def format_bytes(size: int) -> str:
    """A size in text for `parse_bytes`, in the largest binary unit that divides it."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        whole, rest = divmod(size, _UNITS[unit[:-1].lower()])
        if whole and not rest:
            return f"{whole}{unit}"
    return str(size)


def _expanded(value: object) -> object:
    return Path(value).expanduser() if isinstance(value, str | Path) else value


@dataclass(frozen=True)
class Written:
    """How a value is read and shown, for `Annotated`.

    `pydantic.BeforeValidator` would do for reading, but a `--help` would then import pydantic.
    """

    read: Callable[[object], object]
    show: Callable[[Any], str]
    flag: type
    """The type that typer converts a flag to."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        from pydantic_core.core_schema import no_info_before_validator_function

        return no_info_before_validator_function(self.read, handler(source))


ByteCount = Annotated[int, Written(parse_bytes, format_bytes, str)]
HomePath = Annotated[Path, Written(_expanded, str, Path)]
