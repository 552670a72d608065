"""`iota up`: runs a whole swarm on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from iota.cli.spec import given_values
from iota.settings.flags import with_flags
from iota.swarm.options import SwarmOptions, UpOptions

app = typer.Typer()


@app.command()
@with_flags(SwarmOptions, UpOptions)
def up(
    spec: Annotated[Path | None, typer.Option(help="A TOML file of the spec's values.")] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="A.B=C", help="Set one value of the spec.")] = None,
    **flags: Any,
) -> None:
    """Train a model across miners, a validator, an orchestrator, a store and a ledger on this machine.

    Options of the run that are not given are as in the run that is resumed, else they have their defaults.
    """
    from iota.swarm.command import run_up

    given = SwarmOptions.given(flags)
    if values := given_values(spec, set):
        given["values"] = values
    run_up(UpOptions.of(**UpOptions.given(flags)), given)
