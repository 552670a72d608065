"""Types of settings with a text form or checks of their own: sizes, paths, URLs, counts of threads."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from iota.settings.urls import http_url, network, own_host_port, public_host_port, store_url

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

_UNITS = {"": 1, **{unit: 10 ** (3 * n) for n, unit in enumerate("kmgt", 1)}}
_UNITS |= {f"{unit}i": 2 ** (10 * n) for n, unit in enumerate("kmgt", 1)}
_ADDRESS = re.compile("5[1-9A-HJ-NP-Za-km-z]{47}")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*((?:[kmgt]i?)?)b?", re.IGNORECASE)


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
    if not isinstance(value, str | Path):
        return value
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ValueError("this user has no home folder: give a path without ~") from None


def _folder(value: object) -> object:
    """A path at which a folder is or can be made."""
    path = _expanded(value)
    if isinstance(path, Path):
        there = next((place for place in (path, *path.parents) if place.exists()), None)
        if there is not None and not there.is_dir():
            raise ValueError(f"{there} is a file: give a folder")
    return path


def _threads(value: object) -> object:
    """A count of threads that this machine can use."""
    count = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    cores = os.cpu_count() or 1
    if isinstance(count, int) and count > THREADS_PER_CORE * cores:
        raise ValueError(
            f"this machine has {cores} cores, and more than {THREADS_PER_CORE} threads a core slow it down"
        )
    return count


def parse_rate(value: object) -> object:
    """Bytes a second from text such as `20Mbps` (bits) or `2.5MB/s`; other values unchanged.

    Raises:
        ValueError: the text is not a rate.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    bits = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmg]?)(?:bps|bit/s)", text, re.IGNORECASE)
    if bits is not None:
        return int(float(bits[1]) * _UNITS[bits[2].lower()] / 8)
    if not text.lower().endswith("/s"):
        raise ValueError(f"{value!r} is no rate: write 20Mbps (bits) or 2.5MB/s (bytes)")
    return parse_bytes(text[:-2])


def format_rate(rate: int) -> str:
    """A rate in text for `parse_rate`."""
    return f"{format_bytes(rate)}B/s" if str(rate) == format_bytes(rate) else f"{format_bytes(rate)}/s"


def _ss58(text: str) -> str:
    """The form of an address; its checksum is left to whoever uses it."""
    if _ADDRESS.fullmatch(text.strip()) is None:
        raise ValueError(
            "it is no ss58 address: give one as `iota wallet show` prints it (48 characters, 5...)"
        )
    return text.strip()


def _read(parse: Callable[[str], str]) -> Callable[[object], object]:
    return lambda value: parse(value) if isinstance(value, str) else value


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


ByteRate = Annotated[int, Written(parse_rate, format_rate, str)]
"""Bytes a second."""
OwnHostPort = Annotated[str, Written(_read(own_host_port), str, str)]
"""`HOST:PORT` to listen at: an IP address of this machine."""
PublicHostPort = Annotated[str, Written(_read(public_host_port), str, str)]
"""`HOST:PORT` with a port that is one."""
ByteCount = Annotated[int, Written(parse_bytes, format_bytes, str)]
THREADS_PER_CORE = 4
Threads = Annotated[int, Written(_threads, str, int)]
Folder = Annotated[Path, Written(_folder, str, Path)]
HttpUrl = Annotated[str, Written(_read(http_url), str, str)]
Ss58 = Annotated[str, Written(_read(_ss58), str, str)]
Network = Annotated[str, Written(_read(network), str, str)]
StoreUrl = Annotated[str, Written(_read(store_url), str, str)]
HomePath = Annotated[Path, Written(_expanded, str, Path)]
