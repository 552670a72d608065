"""The `iota` command. Each sub-command is imported only when it is called, so that `--help` is fast."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import typer

from iota.console.command import run_command


@dataclass(frozen=True)
class LazyCommand:
    """A command that `module.app` holds; `help` is its line in `iota --help`."""

    module: str
    help: str


COMMANDS: dict[str, LazyCommand] = {
    "up": LazyCommand("iota.cli.up", "Train a model across a whole swarm on this machine."),
    "status": LazyCommand("iota.cli.status", "Show the state of a run."),
    "spec": LazyCommand("iota.cli.spec", "Write the spec of a run on prepared data."),
    "plan": LazyCommand("iota.cli.plan", "Show how a model would be cut, and what each stage needs."),
    "data": LazyCommand("iota.cli.data", "Prepare tokenized data."),
    "export": LazyCommand("iota.cli.export", "Write a run's model for `transformers`."),
    "store": LazyCommand("iota.cli.store", "The embedded object store."),
    "ledger": LazyCommand("iota.cli.ledger", "The embedded ledger: a chain for one machine."),
    "chain": LazyCommand("iota.cli.chain", "A subnet as the chain has it."),
    "wallet": LazyCommand("iota.cli.wallet", "The keys of a node."),
    "doctor": LazyCommand("iota.cli.doctor", "Check this machine, its wallet, the chain and the clock."),
}


def build(arguments: Sequence[str]) -> typer.Typer:
    """The command line, with the one command that `arguments` call for; the others only have help."""
    root = typer.Typer(
        help="IOTA: train one large language model together.", no_args_is_help=True, add_completion=False
    )
    called = next((a for a in arguments if not a.startswith("-")), None)
    for name, lazy in COMMANDS.items():
        if name == called:
            _add(root, name, lazy)
        else:
            root.command(name, help=lazy.help)(_not_called)
    return root


def _not_called() -> None:
    raise AssertionError("only the command that is called is ever run")


def _add(root: typer.Typer, name: str, lazy: LazyCommand) -> None:
    app: typer.Typer = importlib.import_module(lazy.module).app
    if app.registered_callback is None and len(app.registered_commands) == 1 and not app.registered_groups:
        command = app.registered_commands[0]
        assert command.callback is not None
        root.command(name, help=command.help, epilog=command.epilog, no_args_is_help=command.no_args_is_help)(
            command.callback
        )
    else:
        root.add_typer(app, name=name)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run `iota` with `arguments` (those of the process if None) and exit."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    run_command(build(given), given)


if __name__ == "__main__":
    main()
