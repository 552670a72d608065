"""The values of a run that begins with a base of an earlier run: what goes on, and what is new. Pure."""

from __future__ import annotations

from typing import Any, Final

from iota.spec.contradictions import unused
from iota.spec.draft import (
    STAGES,
    Draft,
    all_values,
    checked,
    fix_model,
    merged,
    same_value,
    set_value,
    value_at,
    values_of,
    whole,
)
from iota.spec.run_spec import RunSpec

FIRST_SEQUENCE: Final = "data.first_sequence"
_EPOCHS: Final = "schedule.epochs"
_AUDITS: Final = tuple(
    f"audit.{name}" for name in ("commit_every", "window_steps", "extra_every", "window", "deadline_s")
)
_FOLLOWS: Final[tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]] = (
    ((STAGES, "layout.cuts"), ("layout.cuts", "schedule.credit", "outer.part_elements")),
    (("layout.replicas",), ("outer.eta", "outer.momentum", "outer.momentum_warmup")),
    (("boundary.codec",), ("boundary.ratio", "boundary.hidden_ratio", "boundary.anchor_rank")),
    (
        ("optimizer.kind",),
        tuple(
            f"optimizer.{name}" for name in ("lr", "weight_decay", "betas", "eps", "muon_momentum", "moments")
        ),
    ),
    (("optimizer.decay",), ("optimizer.final_lr",)),
    (("outer.momentum",), ("outer.momentum_warmup",)),
    (("outer.codec",), ("outer.beta",)),
    (
        ("data.sequence_length", "data.sequences", "schedule.steps", "schedule.microbatches"),
        ("schedule.heldout",),
    ),
)
"""Where one of the first is given with another value than the earlier run's, that run's values of the second
do not go on, and are proposed as in a new run. Audit rates are so with any change but that of epochs."""


def continued(spec: RunSpec, epoch: int, given: Draft, *, same_data: bool) -> Draft:
    """The values of a run from the base of `epoch` of the run with `spec`, with `given` in place of its own.

    The learning rate goes on after the steps that are done, and the samples after those that were read where
    the data set is the same one (`same_data`); else these begin anew. Without `schedule.epochs` the run has
    the steps that are left of the earlier one, rounded up to whole epochs.

    Raises:
        ValueError: another shape of the model; no steps are left; or the samples that were read cannot be
            told, since sequences or their order are others.
    """
    own = all_values(spec)
    fix_model(own["model"], given, "the base of --from fixes")
    changed = {path for path, value in values_of(given) if not same_value(value, _at(spec, own, path))}
    left = unused(spec) | {
        path for causes, paths in _FOLLOWS if not changed.isdisjoint(causes) for path in paths
    }
    if changed - {_EPOCHS}:
        left |= set(_AUDITS)
    for path in ("version", "init", "data.manifest", "data.eos_id", _EPOCHS, FIRST_SEQUENCE):
        left.add(path)
    kept: Draft = {}
    for path, value in values_of(own):
        if path not in left:
            set_value(kept, path, value)
    draft = merged(checked(kept, "the earlier run's spec"), given)
    if value_at(given, FIRST_SEQUENCE) is None:
        set_value(draft, FIRST_SEQUENCE, _first_sequence(spec, epoch, given) if same_data else 0)
    if value_at(given, "optimizer.first_step") is None:
        set_value(draft, "optimizer.first_step", spec.steps_before(epoch))
    if value_at(given, _EPOCHS) is None:
        set_value(draft, _EPOCHS, _epochs_left(spec, epoch, value_at(draft, "schedule.steps")))
    return draft


def rolled_back(spec: RunSpec, epoch: int, *, skip_to: int | None = None) -> RunSpec:
    """The spec of a run that does the epochs from `epoch` on anew, with all values of the run with `spec`.

    With `skip_to` it leaves out the samples that the earlier run had before its epoch `skip_to`. What base it
    starts from is added by `iota.outer.start.pinned`.

    Raises ValueError where no epoch is left.
    """
    values = all_values(spec)
    values["init"] = None
    values["schedule"]["epochs"] = _epochs_left(spec, epoch, spec.schedule.steps)
    values["optimizer"]["first_step"] = spec.steps_before(epoch)
    read = epoch if skip_to is None else max(epoch, skip_to)
    values["data"]["first_sequence"] = spec.sequences_before(read)
    return RunSpec.model_validate(values)


def _first_sequence(spec: RunSpec, epoch: int, given: Draft) -> int:
    """Where the samples go on. Raises ValueError where `given` makes them others."""
    for path, ours in (("data.sequence_length", spec.data.sequence_length), ("seed", spec.seed)):
        value = value_at(given, path)
        if value is not None and not same_value(value, ours):
            raise ValueError(
                f"{path} {value} gives the data other sequences, or another order, than the earlier run's"
                f" {ours}: which of them were read cannot be told; leave it out, or give"
                f" --{FIRST_SEQUENCE} 0 to read all of them again"
            )
    return spec.sequences_before(epoch)


def _epochs_left(spec: RunSpec, epoch: int, steps: Any) -> int:
    """Epochs of so many `steps` for the steps that are left of the earlier run. Raises ValueError."""
    left = spec.steps_before(spec.schedule.epochs) - spec.steps_before(epoch)
    if left < 1:
        raise ValueError(
            f"the earlier run has no epoch left after base {epoch}, of {spec.schedule.epochs}: give --epochs,"
            " the number of further ones"
        )
    return -(-left // whole(steps, "schedule.steps"))


def _at(spec: RunSpec, own: Draft, path: str) -> Any:
    """What a run has for a path of a draft."""
    return spec.layout.stages if path == STAGES else value_at(own, path)
