"""Checks values against the types and bounds of a settings class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from iota.settings.declaration import Settings, flag_name, settings_of

S = TypeVar("S", bound=Settings)


def validated(kind: type[S], values: Mapping[str, Any]) -> S:
    """The settings with `values`, and defaults for the others.

    Raises:
        ValueError: one sentence about the first invalid value, with its flag and variable.
    """
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        raise ValueError(_sentence(kind, error)) from None


def _sentence(kind: type[Settings], error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    name, text = str(first["loc"][0]), str(first["msg"]).removeprefix("Value error, ")
    variables = [variable for s in settings_of(kind) if s.name == name for variable in s.variables[:1]]
    also = f" ({variables[0]})" if variables else ""
    return f"{flag_name(name)}{also} cannot be {first['input']!r}: {text}"
