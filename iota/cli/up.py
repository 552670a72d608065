"""`iota up`: runs a whole swarm on this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from iota.settings.flags import with_flags
from iota.swarm.options import SwarmOptions, UpOptions

app = typer.Typer()


@app.command()
@with_flags(SwarmOptions, UpOptions)
def up(
    transport: Annotated[str, typer.Option(help="store or auto (which is the store so far).")] = "auto",
    **flags: Any,
) -> None:
    """Train a model across miners, a validator, an orchestrator, a store and a ledger on this machine.

    Options of the run that are not given are as in the run that is resumed, else they have their defaults.
    """
    from iota.swarm.command import run_up

    if transport not in ("store", "auto"):
        raise ValueError(f"--transport cannot be {transport!r}: give store, or auto to let the swarm choose")
    run_up(UpOptions.of(**UpOptions.given(flags)), SwarmOptions.given(flags))
