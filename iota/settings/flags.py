"""Makes the flags of a command from a settings class. The only module here that imports typer."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Final, TypeVar

import typer

from iota.settings.declaration import Setting, Settings, settings_of

SOURCES: Final = (
    "A value comes from its flag; else from the environment, by the first name that is set; else, by the "
    "same names, from .env in the folder that the command is started in; else it is the default."
)
"""Last paragraph of a command's help."""
Command = TypeVar("Command", bound=Callable[..., Any])


def with_flags(
    *kinds: type[Settings], only: Iterable[str] = (), unset: Mapping[str, str] | None = None
) -> Callable[[Command], Command]:
    """Replaces a command's `**flags` by a flag for each setting of `kinds`, or for those named in `only`.

    A flag that was not given is None, so that `Settings.load` takes the variable or the default. `unset` says
    by name what a command does without the setting, where that is not the setting's own default.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        set_parameters(command, [*own, *(p for kind in kinds for p in flag_parameters(kind, only, unset))])
        return command

    return decorate


def flag_parameters(
    kind: type[Settings], only: Iterable[str] = (), unset: Mapping[str, str] | None = None
) -> list[inspect.Parameter]:
    """The flags of a settings class, as parameters for typer; `unset` as for `with_flags`."""
    return [
        inspect.Parameter(
            s.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=_option(s, (unset or {}).get(s.name)),
        )
        for s in settings_of(kind, tuple(only))
        if s.flags
    ]


def set_parameters(command: Callable[..., Any], parameters: list[inspect.Parameter]) -> None:
    """Replace the signature of `command`, from which typer reads its parameters."""
    by_kind = sorted(parameters, key=lambda p: p.kind)
    command.__signature__ = inspect.Signature(by_kind)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in by_kind}


def _option(s: Setting, unset: str | None) -> Any:
    default = f"default: {unset or s.default or s.unset}"
    sources = f"env {', '.join(s.variables)}; {default}" if s.variables else default
    # The column of flags is cut on a narrow terminal.
    also = f"  Also {', '.join(s.flags[1:])}." if len(s.flags) > 1 else ""
    return Annotated[s.flag_type | None, typer.Option(*s.flags, help=f"{s.help}{also}  ({sources})")]
