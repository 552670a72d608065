"""Declares settings: flags, variables, bounds and documentation are made from one assignment.

A `--help` imports this module, so it imports pydantic only when there are values to check.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from inspect import get_annotations
from types import NoneType
from typing import Any, Self, TypedDict, TypeVar, Unpack, get_args, get_type_hints

from iota.settings.kinds import Written

T = TypeVar("T")


class Bounds(TypedDict, total=False):
    """Constraints on a value, with the meaning of `pydantic.Field`'s arguments."""

    ge: float
    gt: float
    le: float
    lt: float
    pattern: str
    allow_inf_nan: bool


def setting(
    default: T,
    help: str,
    *variables: str,
    flags: tuple[str, ...] | None = None,
    unset: str = "none",
    secret: bool = False,
    **bounds: Unpack[Bounds],
) -> T:
    """Declares one field of a `Settings` class.

    Args:
        default: the value if neither a flag nor a variable sets it.
        help: one or two sentences for `--help`, `.env.example` and docs/settings.md.
        variables: environment variables that set it, by priority; none where only a flag does.
        flags: its spellings as a flag, the shortest first, since a narrow terminal cuts off the others;
            `--field-name` if not given, and an empty tuple where only variables set it.
        unset: the meaning of a default of None, in a few words.
        secret: whether `repr` omits the value.
        bounds: constraints, which pydantic reads from the field's metadata.
    """
    about = {"help": help, "variables": variables, "flags": flags, "unset": unset, "secret": secret}
    return field(default=default, repr=not secret, metadata={**about, **bounds})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A group of settings. Subclasses are frozen dataclasses whose fields are each declared by `setting`."""

    __pydantic_config__ = {"validate_default": True, "extra": "forbid"}  # noqa: RUF012 - its type is pydantic's

    @classmethod
    def of(cls, **values: Any) -> Self:
        """The settings with `values`, and defaults for the others; reads no variables.

        Raises:
            ValueError: one sentence about the first invalid value.
        """
        from iota.settings.validation import validated

        return validated(cls, values)

    @classmethod
    def load(cls, **flags: Any) -> Self:
        """The settings from `flags`, else variables, else defaults; a flag that is None was not given.

        Raises:
            ValueError: one sentence about an unknown `IOTA_*` name, or the first invalid value.
        """
        from iota.settings.environment import check_names, from_variables

        check_names()
        unknown = flags.keys() - {f.name for f in fields(cls)}
        assert not unknown, f"{cls.__name__} has no {sorted(unknown)}"
        return cls.of(**{**from_variables(cls), **cls.given(flags)})

    @classmethod
    def given(cls, flags: Mapping[str, Any]) -> dict[str, Any]:
        """Those of `flags` that are fields of this class and not None (a flag that was not given)."""
        names = {f.name for f in fields(cls)}
        return {name: value for name, value in flags.items() if name in names and value is not None}


@dataclass(frozen=True)
class Setting:
    """One setting, described for flags and documentation."""

    name: str
    flag_type: Any
    """The type that typer converts the text of its flag to, before the bounds are checked."""
    default: str
    """As text for a flag; empty for None."""
    help: str
    variables: tuple[str, ...]
    flags: tuple[str, ...]
    unset: str
    secret: bool


def settings_of(kind: type[Settings], only: Collection[str] = ()) -> list[Setting]:
    """The settings of a class, its own before those of its base class, or `only` those of them by name."""
    found = [s for base in kind.__mro__ if issubclass(base, Settings) for s in own_settings(base)]
    return [s for s in found if not only or s.name in only]


def own_settings(kind: type[Settings]) -> list[Setting]:
    """The settings that a class adds to those of its base class."""
    hints = get_type_hints(kind, include_extras=True)
    declared = {f.name: f for f in fields(kind)}
    return [
        _described(name, hints[name], declared[name].default, dict(declared[name].metadata))
        for name in get_annotations(kind)
    ]


def flag_name(name: str) -> str:
    """The flag of a field: `--field-name`."""
    return "--" + name.replace("_", "-")


def _described(name: str, hint: Any, default: object, declared: dict[str, Any]) -> Setting:
    """The description of a field, from its type hint, default and metadata."""
    parts = get_args(hint)
    present = next(part for part in parts if part is not NoneType) if NoneType in parts else hint
    plain, *marks = get_args(present) if hasattr(present, "__metadata__") else (present,)
    written = next((mark for mark in marks if isinstance(mark, Written)), None)
    if written is not None:
        flag_type, show = written.flag, written.show
    elif isinstance(plain, type) and issubclass(plain, Enum):
        # With a variable too, typer must not check the flag: `validated` reports both in the same way.
        flag_type, show = (str if declared["variables"] else plain), lambda value: str(value.value)
    else:
        flag_type, show = plain, (_yes_or_no if plain is bool else str)
    return Setting(
        name=name,
        flag_type=flag_type,
        default="" if default is None else show(default),
        help=declared["help"],
        variables=declared["variables"],
        flags=(flag_name(name),) if declared["flags"] is None else declared["flags"],
        unset=declared["unset"],
        secret=declared["secret"],
    )


def _yes_or_no(value: bool) -> str:
    return "yes" if value else "no"
