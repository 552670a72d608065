"""`iota spec`: the RunSpec of a run whose parts are started one by one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iota.cli import run_flags

app = typer.Typer()


@app.command()
def spec(
    data: Annotated[Path, typer.Option(help="Folder that `iota data prepare --out` wrote to.")],
    out: Annotated[Path, typer.Option(help="The spec's file; one that is there is not overwritten.")],
    manifest: Annotated[
        str | None, typer.Option(help="Id of the manifest, where the folder holds several.")
    ] = None,
    stages: run_flags.Stages = None,
    replicas: run_flags.Replicas = None,
    epochs: run_flags.Epochs = None,
    steps_per_epoch: run_flags.StepsPerEpoch = None,
    microbatches: run_flags.Microbatches = None,
    model: run_flags.Model = None,
    boundary: run_flags.Boundary = None,
    ratio: run_flags.Ratio = None,
    wire: run_flags.Wire = None,
    pipeline: run_flags.Pipeline = None,
    optimizer: run_flags.Optimizer = None,
    lr: run_flags.LearningRate = None,
    sequence_length: run_flags.SequenceLength = None,
    sequences: run_flags.Sequences = None,
    seed: run_flags.Seed = None,
) -> None:
    """Write the spec of a run: what it computes, and so its id. What is not given is as in `iota up`."""
    flags = dict(locals())
    from iota.data import read_manifest
    from iota.swarm.options import SwarmOptions

    given = {n: v for n in SwarmOptions.model_fields if (v := flags.get(n)) is not None and n != "data"}
    options = SwarmOptions.of(**given)
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
    found = sorted(path.parent.name for path in (data / "data").glob("*/manifest.json"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise ValueError(f"{data} holds no prepared data: run `iota data prepare SOURCE --out {data}` first")
    raise ValueError(f"{data} holds several data sets: choose one with --manifest, of {', '.join(found)}")
