"""The flags that say what a run computes, for the commands that make a RunSpec. None: not given."""

from __future__ import annotations

from typing import Annotated

import typer

from iota.spec import Codec, OptimizerKind, WireDtype
from iota.spec import Pipeline as PipelineKind

Stages = Annotated[int | None, typer.Option("--stages", help="Pipeline stages: one slice of the model each.")]
Replicas = Annotated[int | None, typer.Option("--replicas", help="Miners a stage.")]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Epochs; each ends with a merge.")]
StepsPerEpoch = Annotated[
    int | None, typer.Option("--steps-per-epoch", help="H: optimizer steps in an epoch.")
]
Microbatches = Annotated[int | None, typer.Option("--microbatches", help="M: microbatches in a step.")]
Model = Annotated[str | None, typer.Option("--model", help="A preset, or a JSON file of a model shape.")]
Boundary = Annotated[Codec | None, typer.Option("--boundary", help="Codec between stages.")]
Ratio = Annotated[int | None, typer.Option("--ratio", help="How many times narrower a boundary is.")]
Wire = Annotated[WireDtype | None, typer.Option("--wire", help="Number format on the wire.")]
Pipeline = Annotated[PipelineKind | None, typer.Option("--pipeline", help="Weight versions: see docs.")]
Optimizer = Annotated[OptimizerKind | None, typer.Option("--optimizer", help="Inner optimizer.")]
LearningRate = Annotated[float | None, typer.Option("--lr", help="Learning rate.")]
SequenceLength = Annotated[int | None, typer.Option("--sequence-length", help="Tokens in a sequence.")]
Sequences = Annotated[int | None, typer.Option("--sequences", help="Sequences in a microbatch.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of weights and sample order.")]
