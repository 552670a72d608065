"""A draft: some values of a RunSpec, as a nested dict. Later sources win over earlier ones. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from iota.spec.run_spec import RunSpec
from iota.spec.spec_fields import MADE, SWITCHES, spec_fields

Draft = dict[str, Any]
PRESET = "model.preset"
STAGES = "layout.stages"
MANIFEST = "data.manifest"
DRAFT_ONLY = {
    PRESET: "A preset, or a JSON file of a shape, for the fields of the model that are not given.",
    STAGES: "Pipeline stages, where layout.cuts is not given: the layers are spread evenly by cost.",
}
"""Keys of a draft that are no fields of a RunSpec, with their help."""
PROPOSED = {
    **dict.fromkeys(
        [
            "name",
            "layout.cuts",
            "layout.replicas",
            "boundary.ratio",
            "data.sequence_length",
            "data.sequences",
            "schedule.epochs",
            "schedule.steps",
            "schedule.microbatches",
            "schedule.credit",
            "schedule.heldout",
            "optimizer.kind",
            "optimizer.lr",
            "optimizer.weight_decay",
            "optimizer.warmup_steps",
            "optimizer.decay",
            "outer.part_elements",
            "audit.commit_every",
            "audit.window_steps",
            "audit.extra_every",
            "audit.window",
            "audit.deadline_s",
            "precision",
        ],
        "by the model",
    ),
    "outer.eta": "1, and 0.7 with replicas but in a sparse run, or 0.5 with overlap",
    "outer.momentum": "0, and 0.9 with replicas but in a sparse run or with overlap",
}
"""Values that `iota.model.proposal` proposes in place of the RunSpec's defaults; what they follow from."""


def all_values(spec: RunSpec) -> Draft:
    """Every value of a spec as JSON values, in the form of the newest version, whatever the spec's own is."""
    newest = spec.model_copy(update={"version": RunSpec.newest()})
    values: Draft = newest.model_dump(mode="json")
    return values


def merged(*drafts: Mapping[str, Any]) -> Draft:
    """The values of all drafts; a later draft's win."""
    found: Draft = {}
    for draft in drafts:
        for path, value in values_of(draft):
            set_value(found, path, value)
    return found


def set_value(draft: Draft, path: str, value: Any) -> None:
    """Set the value at a dotted path."""
    *parts, name = path.split(".")
    for part in parts:
        if draft.get(part) is None:
            draft[part] = {}
        draft = draft[part]
    draft[name] = value


def value_at(draft: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; None where the draft has none."""
    found: Any = draft
    for part in path.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def values_of(draft: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of a draft with its dotted path."""
    for name, value in draft.items():
        if isinstance(value, Mapping):
            yield from values_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def whole(value: Any, path: str) -> int:
    """A number above zero that other values depend on. Raises ValueError."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    if number < 1 or number != float(value):
        raise ValueError(f"{path} cannot be {value!r}: give a whole number above zero")
    return number


def same_value(value: Any, ours: Any) -> bool:
    """Whether a value that was given, perhaps as text, is the one that a spec has, as a JSON value."""
    if isinstance(ours, list):
        given = value.split(",") if isinstance(value, str) else value
        return isinstance(given, list | tuple) and list(map(_plain, given)) == list(map(_plain, ours))
    return bool(value == ours) or _plain(value) == _plain(ours)


def _plain(value: Any) -> float | str:
    """A number for a text that is one, so that 1e-3 and 0.001 are the same."""
    try:
        return str(value).lower() if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return str(value).lower()


def fix_model(model: Mapping[str, Any], given: Draft, who: str) -> None:
    """Raise ValueError where `given` has another value of the model than `model`, which `who` fixes."""
    for path, value in values_of(given.get("model", {})):
        ours = value_at(model, path)
        if not same_value(value, ours):
            shown = "none" if value is None else value
            raise ValueError(f"model.{path} is {shown}, and {who} the model: leave it out")


def checked(draft: Mapping[str, Any], place: str) -> Draft:
    """The draft that was read from `place`, with `none` as None where that is a value.

    Raises:
        ValueError: a key that no spec has, with the nearest one that there is.
    """
    found: Draft = {}
    for path, value in values_of(draft):
        if path in SWITCHES and value in (None, "none"):
            path = SWITCHES[path]
        _known(path, place)
        field = spec_fields().get(path)
        set_value(found, path, None if field is not None and field.optional and value == "none" else value)
    return found


def from_assignments(assignments: Iterable[str]) -> Draft:
    """The draft of texts such as `optimizer.lr=3e-4`. Raises ValueError as `checked`, and for other texts."""
    found: Draft = {}
    for text in assignments:
        path, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text!r} sets nothing: write --set optimizer.lr=3e-4")
        _known(path, "--set")
        field = spec_fields().get(path)
        set_value(found, path, value if field is None else field.from_text(value))
    return found


def _known(path: str, place: str) -> None:
    names = [*spec_fields(), *DRAFT_ONLY, MANIFEST]
    if path in MADE and path not in names:
        raise ValueError(f"{place} has {path}, which the command that makes the spec fills in: leave it out")
    if path not in names:
        last = path.rpartition(".")[2]
        ends = [name for name in names if name.rpartition(".")[2] == last]
        near = ends or difflib.get_close_matches(path, names, n=1, cutoff=0.0)
        raise ValueError(f"{place} has {path}, which no spec has: did you mean {near[0]}?")
