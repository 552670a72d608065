"""Reads a RunSpec from its JSON file, and a draft of one from a TOML file."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import ValidationError

from iota.settings.sentences import sentence
from iota.spec import RunSpec
from iota.spec.draft import Draft, all_values, checked


def read_spec(path: Path) -> RunSpec:
    """The spec in the JSON file at `path`.

    Raises:
        ValueError: the file cannot be read, or is not a spec; the message names the first wrong field.
    """
    if path.suffix == ".toml":
        raise ValueError(
            f"{path} is a draft: `iota spec --spec {path} --data DIR --out spec.json` makes the spec of it"
        )
    try:
        return RunSpec.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ValueError(f"the spec {path} cannot be read ({error.strerror}): give --spec FILE") from None
    except ValidationError as error:
        raise ValueError(f"the spec {path} is wrong: {sentence(error)}") from None


def read_draft(path: Path) -> Draft:
    """The values of a spec in the TOML file at `path`, or those of a whole spec in a `.json` file.

    What a run starts from is not among them, and where its steps and samples go on: `--init` and `--from` say
    those.

    Raises:
        ValueError: the file cannot be read, is not TOML, or has a key that no spec has.
    """
    if path.suffix == ".json":
        values = all_values(read_spec(path))
        del values["version"], values["init"]
        del values["data"]["eos_id"], values["data"]["first_sequence"], values["optimizer"]["first_step"]
        return checked(values, str(path))
    try:
        return checked(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except OSError as error:
        raise ValueError(f"the spec {path} cannot be read ({error.strerror}): give --spec FILE") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"the spec {path} is not TOML ({error}): `iota spec --template` writes one"
        ) from None
