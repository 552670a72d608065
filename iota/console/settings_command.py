"""Adds commands whose flags are settings: the settings are loaded, and logging is started."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, Concatenate, ParamSpec, TypeVar

import typer

from iota.console.command import start_logging
from iota.settings import Settings
from iota.settings.flags import SOURCES, flag_parameters, set_parameters

S = TypeVar("S", bound=Settings)
P = ParamSpec("P")


def settings_command(
    app: typer.Typer, kind: type[S], *, only: Iterable[str] = (), help: str | None = None
) -> Callable[[Callable[Concatenate[S, P], None]], Callable[Concatenate[S, P], None]]:
    """Decorates a function as a command of `app`, under its own name.

    The loaded settings are its first parameter; their flags are the last in its help. A command with a flag
    `--log-level` starts logging at that level.

    Args:
        app: the program that gets the command.
        kind: the class of the settings.
        only: names of the settings that get a flag; all if empty.
        help: text of the command's help; by default the function's docstring.
    """

    def decorate(run: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
        own = list(inspect.signature(run, eval_str=True).parameters.values())[1:]
        flags = flag_parameters(kind, only)

        def command(**given: Any) -> None:
            settings = kind.load(**{flag.name: given.pop(flag.name) for flag in flags})
            if any(flag.name == "log_level" for flag in flags):
                start_logging(getattr(settings, "log_level"))  # noqa: B009 - S may be any Settings
            run(settings, **given)  # type: ignore[call-arg]

        set_parameters(command, [*own, *flags])
        app.command(run.__name__, epilog=SOURCES, help=help or inspect.getdoc(run))(command)
        return run

    return decorate
