"""What `iota up` was asked for, and the RunSpec that follows from it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from iota.model.planning import balanced_cuts
from iota.model.presets import load_model
from iota.spec import (
    BoundarySpec,
    Codec,
    Count,
    DataSpec,
    Decay,
    Frozen,
    LayoutSpec,
    OptimizerKind,
    OptimizerSpec,
    OuterSpec,
    Pipeline,
    Positive,
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


class SwarmOptions(Frozen):
    """What the run computes; the same options on the same data give the same RunSpec.

    The defaults are the run that a newcomer sees: it needs no download, shows a falling loss within
    two minutes on two cores, and has one replica a stage, so that its losses repeat to the bit and
    three single-threaded miners do not fight over two cores. Credit is as many as the stages: enough
    to keep every stage at work; each microbatch in flight keeps its activations in memory.
    """

    stages: Positive = 3
    replicas: Positive = 1
    epochs: Positive = 3
    steps_per_epoch: Positive = 20
    microbatches: Positive = 8
    model: str = "small"
    boundary: Codec = Codec.RESBM_ANCHOR
    ratio: Positive = 16
    wire: WireDtype = WireDtype.BF16
    pipeline: Pipeline = Pipeline.DELAYED
    optimizer: OptimizerKind = OptimizerKind.MUON
    lr: Annotated[float, Field(gt=0)] | None = None
    sequence_length: Positive = 256
    sequences: Positive = 4
    data: str = "stdlib"
    tokenizer: str = "bytes"
    seed: Count = 0

    @classmethod
    def of(cls, **given: Any) -> SwarmOptions:
        """The options, or one sentence about the first that does not fit (ValueError)."""
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            flag = flag_name(str(first["loc"][0]))
            raise ValueError(f"{flag} cannot be {first['input']!r}: {first['msg']}") from None

    def overlaid(self, given: dict[str, Any]) -> SwarmOptions:
        """These options with those `given` in their place."""
        return SwarmOptions.of(**{**self.model_dump(), **given})

    def differences(self, other: SwarmOptions) -> list[str]:
        """`--flag OTHER (here OURS)` of every option that is not the same."""
        ours, theirs = self.model_dump(mode="json"), other.model_dump(mode="json")
        return [f"{flag_name(k)} {theirs[k]} (there {ours[k]})" for k in ours if ours[k] != theirs[k]]

    def spec(self, manifest: str, vocab_size: int) -> RunSpec:
        """The RunSpec on the data `manifest`, whose tokenizer has `vocab_size` ids.

        Raises:
            ValueError: options that do not fit each other, in one sentence.
        """
        model = load_model(self.model)
        if model.vocab_size < vocab_size:
            model = load_model(self.model, vocab_size)
        cuts = balanced_cuts(model, self.stages, self.sequence_length)
        lr = LEARNING_RATES[self.optimizer] if self.lr is None else self.lr
        steps = self.epochs * self.steps_per_epoch
        try:
            return RunSpec(
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


def flag_name(option: str) -> str:
    return "--" + option.replace("_", "-")
