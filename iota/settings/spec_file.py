"""Reads a RunSpec from its JSON file."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from iota.settings.sentences import sentence
from iota.spec import RunSpec


def read_spec(path: Path) -> RunSpec:
    """The spec in the JSON file at `path`.

    Raises:
        ValueError: the file cannot be read, or is not a spec; the message names the first wrong field.
    """
    try:
        return RunSpec.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ValueError(f"the spec {path} cannot be read ({error.strerror}): give --spec FILE") from None
    except ValidationError as error:
        raise ValueError(f"the spec {path} is wrong: {sentence(error)}") from None
