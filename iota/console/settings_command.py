"""A command whose flags are the settings of a class: it is called with them loaded and its log started."""

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
    """Adds a function to `app` as a command of its name: `run(settings, its own options)`.

    Settings come first in the function's parameters and last in its help. A command that takes `--log-level`
    starts its log.

    Args:
        app: the program that gets the command.
        kind: the settings that the command has flags for.
        only: the names of those settings, if not all.
        help: the text of its help; the function's docstring if not given.
    """

    def decorate(run: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
        own = list(inspect.signature(run, eval_str=True).parameters.values())[1:]
        flags = flag_parameters(kind, only)

        def command(**given: Any) -> None:
            settings = kind.load(**{flag.name: given.pop(flag.name) for flag in flags})
            if any(flag.name == "log_level" for flag in flags):
                start_logging(getattr(settings, "log_level"))  # noqa: B009 - the class is known by its flags alone
            run(settings, **given)  # type: ignore[call-arg]

        set_parameters(command, [*own, *flags])
        app.command(run.__name__, epilog=SOURCES, help=help or inspect.getdoc(run))(command)
        return run

    return decorate
