"""Checks values against the types and bounds of a settings class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from iota.settings.declaration import Settings, flag_name, settings_of
from iota.settings.sentences import reason, shown

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
    name = str(first["loc"][0])
    described = next(s for s in settings_of(kind) if s.name == name)
    also = f" ({described.variables[0]})" if described.variables else ""
    flag = described.flags[0] if described.flags else flag_name(name)
    given = first["input"]
    text = shown(str(given) if isinstance(given, Path) else given)
    return f"{flag}{also} cannot be {text}: {reason(first)}"
