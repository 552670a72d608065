"""Makes a RunSpec from the values that a person gave, and the proposals for the model's size. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from iota.codec.shapes import boundary_width
from iota.console.counts import counted
from iota.model.audit_rates import least_commit_every, least_score_window, rates_within
from iota.model.cuts import balanced_cuts
from iota.model.layout import stage_parameters
from iota.model.presets import load_model
from iota.model.schedules import Schedule, schedule_for
from iota.model.snapshot_time import deadline_contradiction, least_deadline_s
from iota.settings.sentences import sentence
from iota.spec import Decay, ModelSpec, OptimizerKind, OuterCodec, Overlap, RopeScaling, RunSpec
from iota.spec.contradictions import contradictions
from iota.spec.draft import (
    MANIFEST,
    PRESET,
    STAGES,
    Draft,
    merged,
    set_value,
    value_at,
    values_of,
    whole,
)

DEFAULT_PRESET: Final = "small"
HELDOUT_TOKENS: Final = 1 << 20
"""Of an epoch, at most: the losses of documents vary by some 15 %, so that a standard error under 0.5 % needs
about a thousand documents (docs/data.md)."""
HELDOUT_SHARE: Final = 40
"""Held-out microbatches take at most this part of an epoch's compute, 2.5 %."""
_THIRDS: Final = 3
"""Compute of a trained microbatch, in held-out ones: a FORWARD is a third."""
_HELDOUT: Final = "schedule.heldout"
_PARTS: Final = "outer.part_elements"
_MAX_PARTS: Final = 128
"""Partitions of the largest stage: each costs two mergers a message, and the epoch's record an entry."""
_OUTER_REPLICAS: Final = {"eta": 0.7, "momentum": 0.9}
"""docs/training.md: with one replica a merge is the identity, with more a Nesterov step. In a sparse run
error feedback stands in for the momentum, and a merge is a mean."""
_OUTER_OVERLAP: Final = {"eta": 0.5}
"""docs/training.md: with overlap replicas drift apart the more, the larger the outer step is."""


def make_spec(
    given: Draft, manifest: str, vocab_size: int, heldout_tokens: int | None = None, eos_id: int = 0
) -> RunSpec:
    """The RunSpec with the values of `given` on the data set with id `manifest`; the rest is proposed.

    `vocab_size` is the tokenizer's: a preset's vocabulary grows to it. `heldout_tokens` are the data set's;
    None where it is not known, and then as many as are needed. `eos_id` is the tokenizer's, for a run that
    masks documents; where the data is not known any id does.

    Raises:
        ValueError: values that cannot be, or contradict each other, by the names of their fields.
    """
    named = value_at(given, MANIFEST)
    if named not in (None, manifest):
        raise ValueError(
            f"data.manifest is {named}, and the data given is {manifest}: leave it out, or give that data"
        )
    model = _model(given, vocab_size)
    draft = merged(_proposed(model, given), given)
    draft["model"] = model
    draft["data"] |= {"manifest": manifest, "eos_id": eos_id if _masks_documents(draft) else None}
    draft["layout"].pop("stages", None)
    draft.setdefault("outer", {})
    try:
        spec = RunSpec.model_validate(draft)
    except ValidationError as error:
        raise ValueError(sentence(error)) from None
    boundary_width(spec)  # raises for a codec that is unknown or does not fit the model
    spec = _with_audits(spec, given)
    if value_at(given, _PARTS) is None and (parts := _part_elements(spec)) > spec.outer.part_elements:
        outer = spec.outer.model_copy(update={"part_elements": parts})
        spec = spec.model_copy(update={"outer": outer})
    if value_at(given, _HELDOUT) is None:
        schedule = spec.schedule.model_copy(update={"heldout": _heldout(spec, heldout_tokens)})
        spec = spec.model_copy(update={"schedule": schedule})
    found = contradictions(spec, {path for path, _ in values_of(given)})
    if found := [*found, *filter(None, [deadline_contradiction(spec)])]:
        raise ValueError("; ".join(found))
    return spec


def _masks_documents(draft: Draft) -> bool:
    """What `data.mask_documents` says, which may be text; False for what is neither: RunSpec refuses that."""
    try:
        return TypeAdapter(bool).validate_python(value_at(draft, "data.mask_documents") or False)
    except ValidationError:
        return False


def _with_audits(spec: RunSpec, given: Draft) -> RunSpec:
    """The spec with audits for its size, where they are not given: rates, score window and deadline."""

    def propose(spec: RunSpec, **values: float) -> RunSpec:
        free = {name: value for name, value in values.items() if name not in given.get("audit", {})}
        return spec.model_copy(update={"audit": spec.audit.model_copy(update=free)})

    share = _schedule(spec.model, given).audit_share
    if share is not None:
        spec = propose(spec, commit_every=max(spec.audit.commit_every, least_commit_every(spec)))
        rates = rates_within(spec, share) or spec.audit
        spec = propose(spec, window_steps=rates.window_steps, extra_every=rates.extra_every)
    spec = propose(spec, window=max(spec.audit.window, least_score_window(spec)))
    return propose(spec, deadline_s=max(spec.audit.deadline_s, float(least_deadline_s(spec))))


def _schedule(model: ModelSpec, given: Draft) -> Schedule:
    return schedule_for(model, _preset(given))


def _preset(given: Draft) -> str | None:
    return value_at(given, PRESET) or (None if given.get("model") else DEFAULT_PRESET)


def _heldout(spec: RunSpec, available: int | None) -> int:
    """Held-out microbatches an epoch: for a standard error under 0.5 %, as far as compute and data allow."""
    schedule, length = spec.schedule, spec.data.sequence_length
    wanted = -(-HELDOUT_TOKENS // spec.data.tokens)
    allowed = _THIRDS * schedule.steps * schedule.microbatches // HELDOUT_SHARE
    held = wanted if available is None else max(0, available - 1) // length // spec.data.sequences
    return min(wanted, allowed, held)


def _part_elements(spec: RunSpec) -> int:
    """The least power of two that gives no stage more than `_MAX_PARTS` partitions."""
    largest = max(stage_parameters(spec.model, spec.layout.cuts, spec.boundary))
    return 1 << (-(-largest // _MAX_PARTS) - 1).bit_length()


def _model(given: Draft, vocab_size: int) -> ModelSpec:
    """The shape: a preset or a file, with the fields that are given in place of its own."""
    shape = {name: value for name, value in given.get("model", {}).items() if name != "preset"}
    whole = {name for name, field in ModelSpec.model_fields.items() if field.is_required()} <= shape.keys()
    preset = value_at(given, PRESET) or DEFAULT_PRESET
    values = merged({} if whole else load_model(preset).model_dump(), shape)
    values["rope_scaling"] = _rope_scaling(values.get("rope_scaling"))
    try:
        model = ModelSpec.model_validate(values)
    except ValidationError as error:
        raise ValueError(sentence(error, under="model")) from None
    if model.vocab_size >= vocab_size:
        return model
    if "vocab_size" in shape:
        raise ValueError(
            f"model.vocab_size {model.vocab_size} is less than the {vocab_size} ids of the data's tokenizer:"
            f" give at least {vocab_size}, or data of another tokenizer"
        )
    return ModelSpec.model_validate({**model.model_dump(), "vocab_size": vocab_size})


def _rope_scaling(given: Draft | None) -> Draft | None:
    """The rotary scaling, where it has a factor. Raises ValueError for other values without one."""
    if given is None or given.get("factor") is not None:
        return given
    rest = {name: value for name, value in given.items() if name != "factor"}
    try:
        found = RopeScaling.model_validate(rest)
    except ValidationError as error:
        raise ValueError(sentence(error, under="model.rope_scaling")) from None
    if other := [name for name in rest if getattr(found, name) != getattr(RopeScaling(), name)]:
        raise ValueError(
            f"model.rope_scaling.{other[0]} was given, and model.rope_scaling.factor is none: leave it out,"
            " or give a factor"
        )
    return None


def _proposed(model: ModelSpec, given: Draft) -> Draft:
    """Values for what is not given: by the model's size, and by those given values that decide others."""
    schedule, preset = _schedule(model, given), _preset(given)
    at = merged(_by_size(schedule), given)
    cuts, stages = value_at(given, "layout.cuts"), value_at(at, STAGES)
    if cuts is not None:
        if value_at(given, STAGES) not in (None, len(cuts), str(len(cuts))):
            cut = counted(len(cuts), "stage")
            raise ValueError(f"layout.stages {stages} and layout.cuts, which has {cut}: give one of them")
        stages = len(cuts)
    proposed = _by_size(schedule)
    del proposed["layout"]["stages"]
    length = whole(value_at(at, "data.sequence_length"), "data.sequence_length")
    if cuts is None:
        stages = whole(stages, STAGES)
        proposed["layout"]["cuts"] = balanced_cuts(model, stages, length)
    proposed["schedule"]["credit"] = _credit(stages)
    kind = value_at(at, "optimizer.kind")
    if kind in list(OptimizerKind):
        proposed["optimizer"]["lr"] = schedule.rates[OptimizerKind(kind)]
    steps = whole(value_at(at, "schedule.epochs"), "schedule.epochs") * whole(
        value_at(at, "schedule.steps"), "schedule.steps"
    )
    proposed["optimizer"]["warmup_steps"] = schedule.warmup(steps)
    outer = given.get("outer", {})
    several = whole(value_at(at, "layout.replicas"), "layout.replicas") > 1
    if several and not {"eta", "momentum"} & outer.keys():
        proposed["outer"] = _outer_step(outer)
    if preset is not None:
        proposed["name"] = Path(preset).stem[:64] if preset.endswith(".json") else preset
    return proposed


def _outer_step(outer: Draft) -> Draft:
    """Eta and momentum for several replicas, as far as they are not the RunSpec's defaults."""
    if outer.get("codec") in [codec for codec in OuterCodec if codec.is_sparse]:
        return {}
    return dict(_OUTER_OVERLAP if outer.get("overlap") == Overlap.ONE_EPOCH else _OUTER_REPLICAS)


def _credit(stages: int) -> int:
    """One microbatch for each stage, and more for those that are on their way.

    With S stages that take t for a microbatch and h on the line between two, the first gradient is back at
    stage 0 after S·t + 2·(S-1)·h: no stage waits if that is no more than credit times t. An eighth more is
    enough for h = t/16, which is four times Orion's.
    """
    return stages + max(1, stages // 8) if stages > 1 else 1


def _by_size(schedule: Schedule) -> Draft:
    draft: Draft = {}
    for path, value in (
        (STAGES, schedule.stages),
        ("layout.replicas", schedule.replicas),
        ("boundary.ratio", schedule.ratio),
        ("data.sequence_length", schedule.sequence_length),
        ("data.sequences", schedule.sequences),
        ("schedule.epochs", schedule.epochs),
        ("schedule.steps", schedule.steps),
        ("schedule.microbatches", schedule.microbatches),
        ("optimizer.kind", schedule.optimizer),
        ("optimizer.weight_decay", schedule.weight_decay),
        ("optimizer.decay", Decay.COSINE),
        ("precision", schedule.precision),
    ):
        set_value(draft, path, value)
    return draft
