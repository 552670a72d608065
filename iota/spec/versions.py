"""Versions of a document: a field that a later version adds does not change the ids of earlier documents.

A document holds its version and exactly the fields of that version. Its id is the digest of that form. A
build reads all versions up to its own. Fields that were added later get the value (`Since.before`) that
reproduces what the document's version computed, and not today's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, get_args

from pydantic import (
    BaseModel,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic.fields import FieldInfo

from iota.spec.canonical import Frozen
from iota.spec.fields import Positive


@dataclass(frozen=True, slots=True)
class Since:
    """Marks a field that a later version added, as in `x: Annotated[float, Since(2, before=0.0)] = 0.5`."""

    version: int
    """The first version that has the field."""
    before: Any
    """The value that reproduces the versions without the field."""


class Versioned(Frozen):
    """A document with a version. The default of `version` is the newest version that this build reads.

    Fields of nested models may have a `Since` too. A nested model is a field that holds models of one class:
    one, a tuple of them, or None.
    """

    oldest: ClassVar[int] = 1
    """The earliest version that this build reads."""
    version: Positive

    @classmethod
    def newest(cls) -> int:
        """The newest version that this build reads, and the default for new documents."""
        return int(cls.model_fields["version"].default)

    @model_validator(mode="before")
    @classmethod
    def _read(cls, given: Any, info: ValidationInfo) -> Any:
        if not isinstance(given, Mapping):
            return given
        # With a default, the same text would get another meaning and another id in a later build.
        if info.mode == "json" and "version" not in given:
            raise ValueError(f'the document does not say its version: give "version": {cls.newest()}')
        version = given.get("version", cls.newest())
        if version not in range(cls.oldest, cls.newest() + 1):
            span = f"version {cls.newest()}"
            if cls.oldest < cls.newest():
                span = f"versions {cls.oldest} to {cls.newest()}"
            raise ValueError(
                f"{cls.__name__} version {version!r} is not read here: this build reads {span}; use another"
                " build, or give a document of such a version"
            )
        return given if version == cls.newest() else _filled(cls, given, version)

    @model_serializer(mode="wrap")
    def _write(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        document: dict[str, Any] = dump(self)
        return document if self.version == self.newest() else _without_later(self, document, self.version)


def added_fields(kind: type[BaseModel]) -> dict[str, Since]:
    """The fields of `kind` that a later version added, by name."""
    return {
        name: mark
        for name, field in kind.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Since)
    }


def _filled(kind: type[BaseModel], given: Any, version: int) -> Any:
    """`given`, a `kind` written in `version`, completed to the fields of the newest version.

    Raises ValueError where it holds a field that was added after `version`.
    """
    if isinstance(given, list | tuple):
        return [_filled(kind, item, version) for item in given]
    if isinstance(given, BaseModel):
        given = given.model_dump(exclude_unset=True)
    if not isinstance(given, Mapping):
        return given
    document = dict(given)
    added = added_fields(kind)
    for name, field in kind.model_fields.items():
        if name in added and added[name].version > version:
            if name in document:
                raise ValueError(
                    f"{name} came with version {added[name].version}, and this is a document of version"
                    f" {version}: leave it out, or raise the document's version"
                )
            document[name] = added[name].before
        elif (part := part_class(field)) is not None and (name in document or not field.is_required()):
            document[name] = _filled(part, document.get(name, field.default), version)
    return document


def part_class(field: FieldInfo) -> type[BaseModel] | None:
    """The model class of a field that holds one, a tuple of them, or None; else None."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _without_later(value: Any, document: Any, version: int) -> Any:
    """The dump of `value` without the fields that were added after `version`."""
    if isinstance(value, tuple):
        return type(document)(_without_later(v, d, version) for v, d in zip(value, document, strict=True))
    if not isinstance(value, BaseModel):
        return document
    later = {name for name, mark in added_fields(type(value)).items() if mark.version > version}
    return {
        name: _without_later(getattr(value, name), inner, version)
        for name, inner in document.items()
        if name not in later
    }
