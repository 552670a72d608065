"""Makes a flag for each value of a spec that has no short one."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Annotated, Any

import typer

from iota.spec.draft import PROPOSED, Draft, set_value
from iota.spec.spec_fields import SpecField, spec_fields


def spec_flags(without: Collection[str]) -> list[inspect.Parameter]:
    """The flags `--PATH` of all values whose path is not in `without`, as parameters for typer."""
    return [
        inspect.Parameter(
            _name(path), inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(field)
        )
        for path, field in spec_fields().items()
        if path not in without
    ]


def taken(flags: Mapping[str, Any]) -> Draft:
    """The draft of those `flags` that `spec_flags` made and that were given."""
    draft: Draft = {}
    for path, field in spec_fields().items():
        if (text := flags.get(_name(path))) is not None:
            set_value(draft, path, field.from_text(text))
    return draft


def default_of(field: SpecField) -> str:
    """What a value is where it is not given, as text."""
    if field.path in PROPOSED:
        return PROPOSED[field.path]
    if field.default is None:
        return "none" if field.optional else "by the model"
    return ",".join(map(str, field.default)) if field.many else str(field.default)


def _name(path: str) -> str:
    return path.replace(".", "__")


def _option(field: SpecField) -> Any:
    text = f"{field.help}  (default: {default_of(field)})"
    return Annotated[str | None, typer.Option(f"--{field.path}", help=text, metavar="VALUE")]
