"""`iota spec`: writes the RunSpec of a run whose processes are started one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from iota.console.command_flags import command_line
from iota.settings.flags import with_flags
from iota.swarm.options import RunOptions

app = typer.Typer()


@app.command()
@with_flags(RunOptions)
def spec(
    data: Annotated[Path, typer.Option(help="Folder that `iota data prepare --out` wrote to.")],
    out: Annotated[Path, typer.Option(help="The spec's file; one that is there is not overwritten.")],
    manifest: Annotated[
        str | None, typer.Option(help="Id of the manifest, where the folder holds several.")
    ] = None,
    **flags: Any,
) -> None:
    """Write the spec of a run: what it computes, and so its id. The defaults are those of `iota up`."""
    from iota.data import read_manifest

    options = RunOptions.of(**RunOptions.given(flags))
    identity = manifest or _only_manifest(data)
    found = read_manifest(data, identity)
    made = options.spec(identity, found.tokenizer.vocab_size)
    try:
        with out.open("x") as file:
            file.write(made.model_dump_json(indent=2) + "\n")
    except FileExistsError:
        raise ValueError(f"{out} is there already: remove it, or give another --out") from None
    typer.echo(f"run {made.id}: {made.layout.stages} stages of {list(made.layout.cuts)} layers, in {out}")


def _only_manifest(data: Path) -> str:
    """The id of the one manifest in the folder `data`. Raises ValueError for none or several."""
    found = sorted(path.parent.name for path in (data / "data").glob("*/manifest.json"))
    if len(found) == 1:
        return found[0]
    if not found:
        command = command_line("iota data prepare SOURCE --out", data)
        raise ValueError(f"{data} holds no prepared data: run `{command}` first")
    raise ValueError(f"{data} holds several data sets: choose one with --manifest, of {', '.join(found)}")
