"""The `iota` command. A sub-command's module is imported when it is called, so that `iota --help` is fast."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from iota.console.command import run_command
from iota.console.program import program

COMMANDS = {
    "up": "Train a model across a whole swarm on this machine.",
    "status": "Show the state of a run.",
    "bridge": "Read and write a run's shared variables: pause it, lower its rate, share state.",
    "explain": "Say what a run has on record about one member: work, audits, weight, why it is idle.",
    "spec": "Write the spec of a run on prepared data.",
    "run": "Roll a run back to an older base.",
    "plan": "Show how a model would be cut, and what each stage needs.",
    "data": "Prepare tokenized data.",
    "audit": "Check a verdict, a contradiction or an epoch by what is signed and public.",
    "export": "Write a run's model for `transformers`.",
    "store": "The embedded object store.",
    "ledger": "The embedded ledger: a chain for one machine.",
    "chain": "A subnet as the chain has it.",
    "wallet": "The keys of a node.",
    "doctor": "Check this machine, its wallet, the chain and the clock.",
    "bugreport": "Write one file with versions, settings, logs and findings, without secrets.",
}
"""The line of `iota --help` by sub-command, in its order; `iota.cli.NAME` holds the sub-command as `app`."""


def build(arguments: Sequence[str]) -> typer.Typer:
    """The command line with the sub-command that `arguments` call; the others have a help line alone."""
    root = program("IOTA: train one large language model together.")
    called = next((a for a in arguments if not a.startswith("-")), None)
    for name, help_line in COMMANDS.items():
        if name == called:
            _add(root, name)
        else:
            root.command(name, help=help_line)(_not_called)
    return root


def _not_called() -> None:
    raise AssertionError("only the sub-command in the arguments can run")


def _add(root: typer.Typer, name: str) -> None:
    """Import a sub-command; an app whose command has the sub-command's name is that command, not a group."""
    app: typer.Typer = importlib.import_module(f"iota.cli.{name}").app
    command = app.registered_commands[0]
    assert command.callback is not None
    if (command.name or command.callback.__name__) == name:
        root.command(name, help=command.help, epilog=command.epilog)(command.callback)
    else:
        root.add_typer(app, name=name)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `iota` with `arguments` (by default those of the process) and exit."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    run_command(build(given), given)


if __name__ == "__main__":
    main()
