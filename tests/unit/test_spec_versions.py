"""Versions of a document: a field of a later version leaves the ids of earlier documents alone."""

from __future__ import annotations

import json
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import BaseModel, ValidationError

from iota.data import Manifest
from iota.spec import (
    SPEC_VERSION,
    AuditSpec,
    Frozen,
    OptimizerSpec,
    Positive,
    RunSpec,
    Since,
    Versioned,
    added_fields,
)
from iota.spec.run_spec import OLDEST_SPEC
from tests.support.sample_specs import full_spec, tiny_spec

FIRST_VERSION = SPEC_VERSION
"""Later versions are later than today's."""


class LaterOptimizer(OptimizerSpec):
    noise: Annotated[float, Since(FIRST_VERSION + 1, before=0.0)] = 0.5


class Sparsity(Frozen):
    share: float = 0.1
    rounds: Annotated[int, Since(FIRST_VERSION + 2, before=1)] = 4


class LaterSpec(RunSpec):
    """The spec as later versions may have it: fields at the top, in a part, and a part of its own."""

    oldest: ClassVar[int] = FIRST_VERSION
    version: Positive = FIRST_VERSION + 2
    optimizer: LaterOptimizer
    quorum: Annotated[int, Since(FIRST_VERSION + 1, before=1)] = 3
    sparsity: Annotated[Sparsity | None, Since(FIRST_VERSION + 1, before=None)] = Sparsity()
    layers: tuple[Sparsity, ...] = (Sparsity(),)


LATER = LaterSpec.model_validate(tiny_spec().model_dump(exclude={"version"}))
FIRST = LATER.model_dump(
    mode="json",
    exclude={"quorum", "sparsity"},
) | {
    "version": FIRST_VERSION,
    "optimizer": tiny_spec().optimizer.model_dump(mode="json"),
    "layers": [{"share": 0.1}],
}
"""A document of the first version, as the build that knew no other wrote it."""


def read(document: dict[str, Any]) -> LaterSpec:
    return LaterSpec.model_validate_json(json.dumps(document))


def test_a_later_build_gives_an_earlier_document_the_same_bytes_and_id() -> None:
    class First(RunSpec):
        oldest: ClassVar[int] = FIRST_VERSION
        layers: tuple[dict[str, float], ...]

    assert read(FIRST).canonical() == First.model_validate(FIRST).canonical()
    assert read(FIRST).id == First.model_validate(FIRST).id


def test_later_fields_have_the_value_that_reproduces_the_document_and_not_the_default() -> None:
    spec = read(FIRST)
    assert (spec.quorum, spec.optimizer.noise, spec.sparsity) == (1, 0.0, None)
    assert [layer.rounds for layer in spec.layers] == [1]
    assert (LATER.quorum, LATER.optimizer.noise, LATER.sparsity) == (3, 0.5, Sparsity())


def test_a_part_that_a_document_leaves_out_is_that_of_the_documents_version() -> None:
    short = {name: value for name, value in FIRST.items() if name != "layers"}
    assert read(short) == read(FIRST)
    middle = read(short | {"version": FIRST_VERSION + 1})
    assert middle.sparsity is not None
    assert (middle.quorum, middle.sparsity.share, middle.sparsity.rounds) == (3, 0.1, 1)


def test_a_document_holds_the_fields_of_its_version_and_no_others() -> None:
    versions = {v: FIRST | {"version": FIRST_VERSION + v - 1} for v in (1, 2, 3)}
    held = {v: json.loads(read(document).canonical()) for v, document in versions.items()}
    assert {"quorum", "sparsity"} & held[1].keys() == set()
    assert "noise" not in held[1]["optimizer"]
    assert (held[2]["quorum"], held[2]["optimizer"]["noise"]) == (3, 0.5)
    assert held[2]["sparsity"] == {"share": 0.1}
    assert held[3]["sparsity"] == {"share": 0.1, "rounds": 4}
    assert len({read(document).id for document in held.values()}) == 3
    assert all(json.loads(read(document).canonical()) == document for document in held.values())


@pytest.mark.parametrize("form", ["canonical", "model_dump_json"])
def test_every_text_of_an_earlier_document_reads_back_to_it(form: str) -> None:
    spec = read(FIRST)
    assert LaterSpec.model_validate_json(getattr(spec, form)()) == spec
    assert LaterSpec.model_validate(spec.model_dump()) == spec


def test_an_earlier_document_keeps_its_version_inside_a_message() -> None:
    class Reply(Frozen):
        spec: LaterSpec

    reply = Reply(spec=read(FIRST))
    assert Reply.model_validate_json(reply.model_dump_json()).spec.id == read(FIRST).id


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"quorum": 1}, "quorum"),
        ({"sparsity": None}, "sparsity"),
        ({"optimizer": FIRST["optimizer"] | {"noise": 0.0}}, "noise"),
        ({"layers": [{"share": 0.2, "rounds": 1}]}, "rounds"),
    ],
)
def test_a_field_that_is_newer_than_the_document_is_refused(change: dict[str, Any], name: str) -> None:
    later = f"({FIRST_VERSION + 1}|{FIRST_VERSION + 2})"
    message = f"{name} came with version {later}, and this is a document of version {FIRST_VERSION}: leave"
    with pytest.raises(ValidationError, match=message):
        read(FIRST | change)


def test_parts_made_in_code_follow_the_version_too() -> None:
    parts = {name: getattr(LATER, name) for name in RunSpec.model_fields if name not in ("version", "init")}
    made = LaterSpec(version=FIRST_VERSION, **parts | {"optimizer": LaterOptimizer(lr=1e-3)})
    assert (made.quorum, made.optimizer.noise) == (1, 0.0)
    with pytest.raises(ValidationError, match=f"noise came with version {FIRST_VERSION + 1}"):
        LaterSpec(version=FIRST_VERSION, **parts | {"optimizer": LaterOptimizer(lr=1e-3, noise=0.1)})


@pytest.mark.parametrize("version", [0, FIRST_VERSION - 1, FIRST_VERSION + 3, -1, "1", None, 1.5, [1]])
def test_an_unknown_version_is_refused_naming_both(version: Any) -> None:
    span = f"versions {FIRST_VERSION} to {FIRST_VERSION + 2}"
    with pytest.raises(ValidationError, match=f"is not read here: this build reads {span}") as told:
        read(FIRST | {"version": version})
    assert f"LaterSpec version {version!r}" in str(told.value)


def test_a_spec_of_before_its_oldest_version_is_refused() -> None:
    """Its runs computed by rules that this build does not have."""
    earlier = tiny_spec().model_dump(mode="json") | {"version": OLDEST_SPEC - 1}
    with pytest.raises(ValidationError, match=f"this build reads versions? {OLDEST_SPEC}"):
        RunSpec.model_validate_json(json.dumps(earlier))


def test_a_text_that_does_not_say_its_version_is_refused() -> None:
    with pytest.raises(ValidationError, match=f'give "version": {FIRST_VERSION + 2}'):
        read({name: value for name, value in FIRST.items() if name != "version"})


def test_a_default_that_is_left_out_and_one_that_is_written_have_one_id() -> None:
    spec = full_spec().model_copy(update={"audit": AuditSpec()})
    short = {"version": SPEC_VERSION} | spec.model_dump(mode="json", exclude_defaults=True)
    assert "audit" not in short
    assert RunSpec.model_validate_json(json.dumps(short)).id == spec.id
    assert RunSpec.model_validate_json(spec.canonical()).id == spec.id


def test_ids_of_other_specs_differ() -> None:
    assert full_spec().id != full_spec().model_copy(update={"seed": 1}).id


@pytest.mark.parametrize("kind", [RunSpec, Manifest])
def test_no_field_is_of_a_version_that_is_not_yet_written(kind: type[Versioned]) -> None:
    """Raise the document's version with the first field that is marked `Since` it."""
    seen: list[type[BaseModel]] = [kind]
    for model in seen:
        assert all(1 < mark.version <= kind.newest() for mark in added_fields(model).values())
        parts = (field.annotation for field in model.model_fields.values())
        seen += [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
