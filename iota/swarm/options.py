"""The options of `iota up` and `iota spec`, and the RunSpec that follows from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from iota.codec import codec_names
from iota.settings import Settings, setting
from iota.settings.declaration import flag_name
from iota.settings.kinds import Folder, Threads
from iota.settings.roles import MAX_PASSES, Ways
from iota.spec import MAX_INTEGER, OptimizerKind, Pipeline, RunSpec, WireDtype
from iota.spec.draft import MANIFEST, PRESET, STAGES, Draft, merged, set_value, value_at, values_of

_BY_MODEL = "by the model"


def _of_spec(path: str, help: str, short: str, unset: str = _BY_MODEL, **bounds: Any) -> Any:
    """A flag for the value of a spec at `path`: a short name, and the path as every other value has it."""
    return setting(None, help, flags=(short, f"--{path}"), unset=unset, **bounds)


@dataclass(frozen=True, kw_only=True)
class RunOptions(Settings):
    """The values of a spec that have a short flag. Equal options on equal data give an equal RunSpec.

    What is not given is proposed by the model's size (`iota.model.schedules`).
    """

    stages: int | None = _of_spec(STAGES, "Pipeline stages: one slice of the model each.", "--stages", gt=0)
    replicas: int | None = _of_spec("layout.replicas", "Miners a stage.", "--replicas", gt=0)
    epochs: int | None = _of_spec("schedule.epochs", "Epochs; each ends with a merge.", "--epochs", gt=0)
    steps_per_epoch: int | None = _of_spec(
        "schedule.steps", "H: optimizer steps in an epoch.", "--steps-per-epoch", gt=0
    )
    microbatches: int | None = _of_spec(
        "schedule.microbatches", "M: microbatches in a step.", "--microbatches", gt=0
    )
    model: str | None = _of_spec(PRESET, "A preset, or a JSON file of a model shape.", "--model", "small")
    boundary: str | None = _of_spec(
        "boundary.codec", f"Codec between stages: {', '.join(codec_names())}.", "--boundary", "resbm-anchor"
    )
    ratio: int | None = _of_spec("boundary.ratio", "How many times narrower a boundary is.", "--ratio", gt=0)
    wire: WireDtype | None = _of_spec("boundary.wire", "Number format on the wire.", "--wire", "bf16")
    pipeline: Pipeline | None = _of_spec(
        "schedule.pipeline", "Weight versions: see docs/training.md.", "--pipeline", "delayed"
    )
    optimizer: OptimizerKind | None = _of_spec("optimizer.kind", "Inner optimizer.", "--optimizer")
    lr: float | None = _of_spec("optimizer.lr", "Learning rate.", "--lr", gt=0, allow_inf_nan=False)
    sequence_length: int | None = _of_spec(
        "data.sequence_length", "Tokens in a sequence.", "--sequence-length", gt=0
    )
    sequences: int | None = _of_spec("data.sequences", "Sequences in a microbatch.", "--sequences", gt=0)
    seed: int | None = setting(None, "Seed of weights and sample order.", unset="0", ge=0, le=MAX_INTEGER)
    init: str | None = setting(
        None, "Existing weights to start from: a folder, or NAME@REVISION on the Hub.", unset="random ones"
    )
    values: dict[str, Any] | None = setting(None, "Values of --spec, --set and other flags.", flags=())
    """A draft of the spec, over which the values above win."""

    def draft(self) -> Draft:
        """What was given, by the paths of the spec; `init` gives the model. Raises ValueError."""
        own: Draft = {}
        for name, path in SPEC_PATHS.items():
            if (value := getattr(self, name)) is not None:
                set_value(own, path, value)
        given = merged(self.values or {}, own)
        if self.init is None:
            return given
        from iota.swarm.starting import starting_weights  # imports torch

        return merged(given, starting_weights(self.init).draft(given))

    def draft_spec(self) -> RunSpec:
        """The spec before its data is known, with placeholders for what the data gives. Raises as `spec`."""
        return self.spec(value_at(self.draft(), MANIFEST) or "0" * 64, 2)

    def spec(
        self, manifest: str, vocab_size: int, heldout_tokens: int | None = None, eos_id: int = 0
    ) -> RunSpec:
        """The RunSpec for the data set with manifest id `manifest`, whose tokenizer has `vocab_size` ids.

        `heldout_tokens` are those that it holds out, `eos_id` separates its documents.

        Raises:
            ValueError: values that cannot be, or contradict each other.
        """
        from iota.model.proposal import make_spec  # slow to import, and a --help needs none of it

        return make_spec(self.draft(), manifest, vocab_size, heldout_tokens, eos_id)


SPEC_PATHS = {
    f.name: f.metadata["flags"][-1].removeprefix("--") if f.metadata["flags"] else f.name
    for f in fields(RunOptions)
    if f.name not in ("init", "values")
}
"""The path in a spec of each option that has a short flag."""


@dataclass(frozen=True, kw_only=True)
class SwarmOptions(RunOptions):
    """Options that fix what the run of `iota up` computes, with its data."""

    data: str = setting("stdlib", "stdlib, hf:DATASET, or a file or folder of text.")
    tokenizer: str = setting("bytes", "bytes, a folder, or a name on the Hub.")
    origin: str | None = setting(
        None,
        "Folder of an earlier `iota up`, from whose base this run starts.",
        flags=("--from",),
        unset="a run of its own",
    )
    epoch: int | None = setting(None, "The epoch of that base.", ge=0, unset="the newest")

    def differences(self, given: dict[str, Any]) -> list[str]:
        """`--flag GIVEN (there OURS)` for each of the `given` options that has another value here.

        Raises:
            ValueError: a given value that is out of bounds.
        """
        draft = merged(self.values or {}, given.get("values") or {})
        theirs = SwarmOptions.of(**{**asdict(self), **given, "values": draft})
        ours_spec, their_spec = self.draft_spec(), theirs.draft_spec()
        compared = {
            flag_name(name): (getattr(self, name), getattr(theirs, name))
            for name in ("data", "tokenizer", "init", "origin", "epoch")
        }
        flags = {path: flag_name(name) for name, path in SPEC_PATHS.items()}
        for path, _ in values_of(SwarmOptions.of(**given).draft()):
            values = _value(ours_spec, path), _value(their_spec, path)
            compared[flags.get(path, f"--set {path}")] = values
        return [f"{flag} {b} (there {a})" for flag, (a, b) in compared.items() if a != b]


def _value(spec: RunSpec, path: str) -> Any:
    """What a spec has for a path of a draft."""
    if path == STAGES:
        return spec.layout.stages
    return spec.name if path == PRESET else value_at(spec.model_dump(mode="json"), path)


@dataclass(frozen=True, kw_only=True)
class UpOptions(Settings):
    """Options of one `iota up` that change nothing of what is computed."""

    run_dir: Folder | None = setting(
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
    threads: Threads = setting(1, "CPU threads of each node.", ge=1)
    device: str = setting("cpu", "Where nodes compute: cpu, cuda ...")
    transport: Ways = setting(Ways.DIRECT, "How frames travel: direct, iroh, store or auto.")
    max_passes: float = setting(MAX_PASSES, "Most passes over the training data.", gt=0)
    port: int | None = setting(None, "The orchestrator's port.", unset="any free one", ge=1, le=65535)
