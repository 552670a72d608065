"""The form that the four console programs share: help, `--version`, `--install-completion`."""

from __future__ import annotations

from typing import Annotated

import typer


def program(help: str) -> typer.Typer:
    """A program whose sub-commands the caller adds."""
    app = typer.Typer(help=help, no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_root)
    return app


def _show(wanted: bool) -> None:
    if wanted:
        from iota.console.version import versions_line  # reads packages' metadata: no other command needs it

        typer.echo(versions_line())
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show, is_eager=True, help="Show versions and exit.")
    ] = False,
) -> None:
    pass
