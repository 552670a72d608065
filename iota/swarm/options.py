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
"""docs/training.md: with one replica a merge is the identity, with more a Nesterov step."""
WARMUP_SHARE = 0.1
"""Share of all steps that warm up, and 10 steps at most."""


@dataclass(frozen=True, kw_only=True)
class RunOptions(Settings):
    """Options that fix what a run computes: equal options on equal data give an equal RunSpec.

    The defaults need no download and show a falling loss within two minutes on two cores. One replica a
    stage makes the losses repeat to the bit, with three single-threaded miners on those cores. The credit
    equals the number of stages, which keeps every stage busy; more would only hold more activations.
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
    pipeline: Pipeline = setting(Pipeline.DELAYED, "Weight versions: see docs/training.md.")
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
        """The RunSpec for the data set with manifest id `manifest`, whose tokenizer has `vocab_size` ids.

        Raises:
            ValueError: one sentence about options that do not fit each other.
        """
        from iota.model.planning import balanced_cuts  # slow to import, and a --help needs none of it
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
        boundary_width(spec)  # raises for a codec that is unknown or does not fit the model
        return spec


@dataclass(frozen=True, kw_only=True)
class SwarmOptions(RunOptions):
    """Options that fix what the run of `iota up` computes, with its data."""

    data: str = setting("stdlib", "stdlib, hf:DATASET, or a file or folder of text.")
    tokenizer: str = setting("bytes", "bytes, a folder, or a name on the Hub.")

    def differences(self, given: dict[str, Any]) -> list[str]:
        """`--flag GIVEN (there OURS)` for each of the `given` options that has another value here.

        Raises:
            ValueError: a given value that is out of bounds.
        """
        ours = asdict(self)
        theirs = asdict(SwarmOptions.of(**{**ours, **given}))
        return [f"{flag_name(k)} {theirs[k]} (there {ours[k]})" for k in ours if ours[k] != theirs[k]]


@dataclass(frozen=True, kw_only=True)
class UpOptions(Settings):
    """Options of one `iota up` that change nothing of what is computed."""

    run_dir: Path | None = setting(
        None, "Folder of the run; one that is there is resumed.", unset="a new one"
    )
    summary: Path | None = setting(None, "Write the summary to this JSON file.")
    dashboard: bool = setting(
        True, "A live page, where there is a terminal.", flags=("--dashboard/--no-dashboard",)
    )
    validator: bool = setting(
        True, "Audit the miners and set weights.", flags=("--validator/--no-validator",)
    )
    compare: bool = setting(False, "Measure one plain process too.")
    threads: int = setting(1, "CPU threads of each node.", ge=1)
    device: str = setting("cpu", "Where nodes compute: cpu, cuda ...")
    port: int | None = setting(None, "The orchestrator's port.", unset="any free one", ge=1, le=65535)
