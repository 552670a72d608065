"""`iota up`: a whole swarm on this machine, with one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iota.cli import run_flags

app = typer.Typer()


@app.command()
def up(
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
    data: Annotated[str | None, typer.Option(help="stdlib, hf:DATASET, or a file or folder of text.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="bytes, a folder, or a name on the Hub.")] = None,
    seed: run_flags.Seed = None,
    transport: Annotated[str, typer.Option(help="store or auto (which is the store so far).")] = "auto",
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the run; one that is there is resumed.")
    ] = None,
    summary: Annotated[Path | None, typer.Option(help="Write the summary to this JSON file.")] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Measure one plain process too.")] = False,
    validator: Annotated[bool, typer.Option(help="Audit the miners and set weights.")] = True,
    threads: Annotated[int, typer.Option(help="CPU threads of each node.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="Where nodes compute: cpu, cuda ...")] = "cpu",
    port: Annotated[
        int | None, typer.Option(help="The orchestrator's port; any free one if not given.", min=1, max=65535)
    ] = None,
    dashboard: Annotated[bool, typer.Option(help="A live page, where there is a terminal.")] = True,
) -> None:
    """Train a model across miners, a validator, an orchestrator, a store and a ledger on this machine.

    What is not given is as in the run that is resumed, else as the run that a newcomer should see.
    """
    flags = dict(locals())
    from iota.swarm.command import UpCommand, run_up
    from iota.swarm.options import SwarmOptions

    if transport not in ("store", "auto"):
        raise ValueError(f"--transport cannot be {transport!r}: give store, or auto to let the swarm choose")
    run_up(
        UpCommand(
            given={n: flags[n] for n in SwarmOptions.model_fields if flags[n] is not None},
            run_dir=run_dir,
            summary=summary,
            compare=compare,
            validator=validator,
            threads=threads,
            device=device,
            port=port,
            dashboard=dashboard,
        )
    )
