"""The options of `iota up` and `iota spec`, and the RunSpec that follows from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from iota.codec import codec_names
from iota.codec.shapes import boundary_width
from iota.settings import Settings, setting
from iota.settings.declaration import flag_name
from iota.spec import (
    MAX_INTEGER,
    BoundarySpec,
    DataSpec,
    Decay,
    LayoutSpec,
    OptimizerKind,
    OptimizerSpec,
    OuterSpec,
    Pipeline,
    RunSpec,
    ScheduleSpec,
    WireDtype,
)

LEARNING_RATES = {OptimizerKind.ADAMW: 1e-3, OptimizerKind.MUON: 5e-3, OptimizerKind.SGD: 1e-1}
"""Where `--lr` is not given: the best of a few for preset `small` in `delayed` (docs/decisions.md)."""
OUTER_ALONE = OuterSpec(eta=1.0, momentum=0.0)
OUTER_REPLICAS = OuterSpec(eta=0.7, momentum=0.9)
"""training.md: with one replica the merge is the identity, with more it is Nesterov's."""
WARMUP_SHARE = 0.1


@dataclass(frozen=True, kw_only=True)
class RunOptions(Settings):
    """What a run computes; the same options on the same data give the same RunSpec.

    The defaults are the run that a newcomer sees: it needs no download, shows a falling loss within
    two minutes on two cores, and has one replica a stage, so that its losses repeat to the bit and
    three single-threaded miners do not fight over two cores. Credit is as many as the stages: enough
    to keep every stage at work; each microbatch in flight keeps its activations in memory.
    """

    stages: int = setting(3, "Pipeline stages: one slice of the model each.", gt=0)
    replicas: int = setting(1, "Miners a stage.", gt=0)
    epochs: int = setting(3, "Epochs; each ends with a merge.", gt=0)
    steps_per_epoch: int = setting(20, "H: optimizer steps in an epoch.", gt=0)
    microbatches: int = setting(8, "M: microbatches in a step.", gt=0)
    model: str = setting("small", "A preset, or a JSON file of a model shape.")
    boundary: str = setting("resbm-anchor", f"Codec between stages: {', '.join(codec_names())}.")
    ratio: int = setting(16, "How many times narrower a boundary is.", gt=0)
    wire: WireDtype = setting(WireDtype.BF16, "Number format on the wire.")
    pipeline: Pipeline = setting(Pipeline.DELAYED, "Weight versions: see docs.")
    optimizer: OptimizerKind = setting(OptimizerKind.MUON, "Inner optimizer.")
    lr: float | None = setting(
        None,
        "Learning rate.",
        unset=", ".join(f"{rate:g} for {kind}" for kind, rate in LEARNING_RATES.items()),
        gt=0,
        allow_inf_nan=False,
    )
    sequence_length: int = setting(256, "Tokens in a sequence.", gt=0)
    sequences: int = setting(4, "Sequences in a microbatch.", gt=0)
    seed: int = setting(0, "Seed of weights and sample order.", ge=0, le=MAX_INTEGER)

    def spec(self, manifest: str, vocab_size: int) -> RunSpec:
        """The RunSpec on the data `manifest`, whose tokenizer has `vocab_size` ids.

        Raises:
            ValueError: options that do not fit each other, in one sentence.
        """
        from iota.model.planning import balanced_cuts  # not for a --help
        from iota.model.presets import load_model

        model = load_model(self.model)
        if model.vocab_size < vocab_size:
            model = load_model(self.model, vocab_size)
        cuts = balanced_cuts(model, self.stages, self.sequence_length)
        lr = LEARNING_RATES[self.optimizer] if self.lr is None else self.lr
        steps = self.epochs * self.steps_per_epoch
        try:
            spec = RunSpec(
                name=Path(self.model).stem[:64] if self.model.endswith(".json") else self.model,
                model=model,
                layout=LayoutSpec(cuts=cuts, replicas=self.replicas),
                boundary=BoundarySpec(codec=self.boundary, ratio=self.ratio, wire=self.wire),
                data=DataSpec(
                    manifest=manifest, sequence_length=self.sequence_length, sequences=self.sequences
                ),
                schedule=ScheduleSpec(
                    epochs=self.epochs,
                    steps=self.steps_per_epoch,
                    microbatches=self.microbatches,
                    pipeline=self.pipeline,
                    credit=self.stages,
                ),
                optimizer=OptimizerSpec(
                    kind=self.optimizer,
                    lr=lr,
                    warmup_steps=min(10, int(steps * WARMUP_SHARE)),
                    decay=Decay.COSINE,
                ),
                outer=OUTER_ALONE if self.replicas == 1 else OUTER_REPLICAS,
                seed=self.seed,
            )
        except ValidationError as error:
            raise ValueError(str(error.errors()[0]["msg"]).removeprefix("Value error, ")) from None
        boundary_width(spec)  # refuses a codec that is unknown, or does not fit the model
        return spec


@dataclass(frozen=True, kw_only=True)
class SwarmOptions(RunOptions):
    """What the run of `iota up` computes, and on which data."""

    data: str = setting("stdlib", "stdlib, hf:DATASET, or a file or folder of text.")
    tokenizer: str = setting("bytes", "bytes, a folder, or a name on the Hub.")

    def overlaid(self, given: dict[str, Any]) -> SwarmOptions:
        """These options with those `given` in their place."""
        return SwarmOptions.of(**{**asdict(self), **given})

    def differences(self, other: SwarmOptions) -> list[str]:
        """`--flag OTHER (there OURS)` of every option that is not the same."""
        ours, theirs = asdict(self), asdict(other)
        return [f"{flag_name(k)} {theirs[k]} (there {ours[k]})" for k in ours if ours[k] != theirs[k]]


@dataclass(frozen=True, kw_only=True)
class Machine(Settings):
    """What is chosen for this machine and this command, and changes nothing that is computed."""

    validator: bool = setting(
        True, "Audit the miners and set weights.", flags=("--validator/--no-validator",)
    )
    compare: bool = setting(False, "Measure one plain process too.")
    threads: int = setting(1, "CPU threads of each node.", ge=1)
    device: str = setting("cpu", "Where nodes compute: cpu, cuda ...")
    port: int | None = setting(None, "The orchestrator's port.", unset="any free one", ge=1, le=65535)


@dataclass(frozen=True, kw_only=True)
class UpOptions(Machine):
    """What one `iota up` does beside training."""

    run_dir: Path | None = setting(
        None, "Folder of the run; one that is there is resumed.", unset="a new one"
    )
    summary: Path | None = setting(None, "Write the summary to this JSON file.")
    dashboard: bool = setting(
        True, "A live page, where there is a terminal.", flags=("--dashboard/--no-dashboard",)
    )
