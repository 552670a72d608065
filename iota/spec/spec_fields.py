"""The fields of a RunSpec by their dotted paths, from which flags, the spec's file and its help are made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from types import NoneType
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from iota.spec.run_spec import RunSpec
from iota.spec.versions import part_class

MADE: Final = ("version", "data.manifest", "data.eos_id", "init")
"""Fields that the command which makes a spec fills in."""
SWITCHES: Final = {"model.rope_scaling": "model.rope_scaling.factor"}
"""Parts that may be None, each with the field of it that is `none` then; by default it is."""


@dataclass(frozen=True)
class SpecField:
    """One value of a spec that a person may choose."""

    path: str
    """Such as `optimizer.lr`: the name of its flag, and its key in the file."""
    help: str
    default: Any
    """None where the field has no default, or the default is None."""
    optional: bool
    """Whether it may be None, which is written `none`."""
    many: bool
    """Whether it is a tuple, which is written with commas."""

    def from_text(self, text: str) -> Any:
        """The value that a flag's text stands for; numbers stay text, which the RunSpec converts."""
        if self.optional and text == "none":
            return None
        return [part.strip() for part in text.split(",")] if self.many else text


@cache
def spec_fields() -> dict[str, SpecField]:
    """The fields that a person may choose, by path, in the order of the RunSpec."""
    return {field.path: field for field in _fields(RunSpec, "")}


def _fields(kind: type[BaseModel], prefix: str) -> Iterator[SpecField]:
    for name, info in kind.model_fields.items():
        path = prefix + name
        if path in MADE:
            continue
        if (part := part_class(info)) is not None:
            yield from _fields(part, f"{path}.")
        else:
            yield _described(path, info)


def _described(path: str, info: FieldInfo) -> SpecField:
    kinds = get_args(info.annotation) or (info.annotation,)
    choices = [k for k in kinds if isinstance(k, type) and issubclass(k, StrEnum)]
    text = " ".join((info.description or "").replace("`", "").split())
    if choices and not all(choice in text for choice in choices[0]):
        text = f"{text.removesuffix('.')}: {', '.join(choices[0])}."
    return SpecField(
        path=path,
        help=text,
        default=None if info.is_required() or path in SWITCHES.values() else info.default,
        optional=NoneType in kinds or path in SWITCHES.values(),
        many=get_origin(info.annotation) is tuple,
    )
