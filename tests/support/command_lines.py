"""Whether a command line is one of ours, or of the SDK's `btcli`, without running it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points

from click import Command
from click.testing import CliRunner
from typer.main import get_command

from iota.cli.main import build


def reached(line: Sequence[str]) -> str | None:
    """The command that a command line reaches by the program's own parsers; None where they refuse it."""
    program, *arguments = line
    (found,) = entry_points(group="console_scripts", name=program)
    command = get_command(build(arguments)) if program == "iota" else _command(found.module)
    # An unknown command or option is refused before --help is heeded.
    said = CliRunner().invoke(command, [*arguments, "--help"], prog_name=program)
    usage = re.search(r"Usage: (.+?) \[OPTIONS\]", said.output)
    return usage[1] if said.exit_code == 0 and usage is not None else None


@cache
def _command(module: str) -> Command:
    """The command of a module's app. That of `btcli` takes half a second to make."""
    made: Command = get_command(import_module(module).app)
    return made
