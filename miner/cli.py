"""`iota-miner`: register a hotkey, certify workers of it, and mine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iota.console.command import run_command
from iota.console.program import program
from iota.console.settings_command import settings_command
from iota.registration.command import add_register
from iota.settings import WALLET, MinerSettings

app = program("Host one pipeline stage of a run, and be paid for checked work.")


@settings_command(app, MinerSettings)
def start(settings: MinerSettings) -> None:
    """Join a run and train until it ends. Ctrl-C stops; starting again continues from the data directory.

    With --worker FILE the machine needs no wallet: see `iota-miner certify --help`.
    """
    import asyncio

    from miner.run import mine  # takes seconds: a wrong setting is refused before

    asyncio.run(mine(settings))


add_register(app, "miner")


@settings_command(app, MinerSettings, only=("orchestrator", "orchestrator_hotkey", *WALLET, "log_level"))
def certify(
    settings: MinerSettings,
    out: Annotated[Path, typer.Option(help="The worker file to write; none is ever overwritten.")],
    spec: Annotated[
        Path | None, typer.Option(help="The run's spec, in place of asking --orchestrator for its run.")
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=1024, help="Files to make: FILE-1, FILE-2 and so on, one a machine.")
    ] = 1,
) -> None:
    """Make a worker of this wallet's hotkey: a key of its own, certified for one run, in a file.

    Use it where several machines mine for one hotkey, or where the hotkey is to stay off the machine that
    mines. Run it where the hotkey is, copy the file to the other machine (mode 600), and start there with
    `iota-miner start --worker FILE`. What the workers earn is the hotkey's, and so are their bans. If a file
    is stolen, `iota-miner revoke` shuts its key out. One hotkey on one machine needs none of this.
    """
    import asyncio

    from miner import workers as made

    for line in made.certify(settings, asyncio.run(made.run_of(settings, spec)), out, workers):
        typer.echo(line)


@settings_command(app, MinerSettings, only=("orchestrator", "orchestrator_hotkey", *WALLET, "log_level"))
def revoke(
    settings: MinerSettings,
    address: Annotated[
        str,
        typer.Argument(metavar="WORKER", help="The worker's address, as `iota-miner certify` prints it."),
    ],
) -> None:
    """Revoke a worker of this wallet's hotkey, for the rest of the run: its key is refused from now on.

    Its unfinished work goes to others, and other workers go on. What it has done and no passed audit has
    vested yet is not paid any more: audits of it cannot be answered without the key. Nobody is banned for it.
    It cannot be taken back: for the same machine make a new worker with `iota-miner certify`. An address that
    is no member of the run is taken too, since a worker may be revoked before it joins; the answer says so.
    """
    import asyncio

    from miner.workers import revoke

    typer.echo(asyncio.run(revoke(settings, address)))


def main() -> None:
    """Console entry point."""
    run_command(app)


if __name__ == "__main__":
    main()
