"""Whether a command line is one of ours, or of the SDK's `btcli`, without running it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points

from typer.testing import CliRunner

from iota.cli.main import build


def reached(line: Sequence[str]) -> str | None:
    """The command that a command line reaches by the program's own parsers; None where they refuse it."""
    program, *arguments = line
    (found,) = entry_points(group="console_scripts", name=program)
    app = build(arguments) if program == "iota" else import_module(found.module).app
    # An unknown command or option is refused before --help is heeded.
    said = CliRunner().invoke(app, [*arguments, "--help"], prog_name=program)
    usage = re.search(r"Usage: (.+?) \[OPTIONS\]", said.output)
    return usage[1] if said.exit_code == 0 and usage is not None else None
