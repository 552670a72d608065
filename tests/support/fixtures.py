"""The stored bytes of every format, and the command that replaces them.

    python -m tests.support.fixtures

A format whose bytes changed keeps its old fixture until its version is raised. New samples are added.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support.formats import FORMATS, Format
from tests.support.stored_keys import FOLDER, save_signatures

COMMAND = "python -m tests.support.fixtures"


class Unraised(Exception):
    """The bytes of a format changed, and its version did not."""


def fixture_of(form: Format) -> dict[str, Any]:
    """The fixture as today's code makes it."""
    values: dict[str, dict[str, Any]] = {}
    for name, sample in form.values.items():
        parts = form.write(sample)
        values[name] = {"parts": [part.hex() if form.binary else part.decode() for part in parts]}
        if form.digest is not None:
            values[name]["digest"] = form.digest(sample)
    return {"version": form.version, "values": values}


def stored_parts(stored: dict[str, Any], form: Format) -> Sequence[bytes]:
    """The bytes of one stored value."""
    return [bytes.fromhex(part) if form.binary else part.encode() for part in stored["parts"]]


def load(form: Format, folder: Path = FOLDER) -> dict[str, Any]:
    """The stored fixture; one without a version where there is none."""
    path = folder / f"{form.name}.json"
    fixture: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"version": 0, "values": {}}
    return fixture


def changed(form: Format, fixture: dict[str, Any]) -> list[str]:
    """Names of the stored values that today's code does not write, or writes otherwise."""
    today = fixture_of(form)["values"]
    return [name for name, stored in fixture["values"].items() if today.get(name) != stored]


def check(form: Format, folder: Path = FOLDER) -> None:
    """Hold the stored bytes of today's version against those that today's code writes.

    Raises:
        Unraised: they are others; it says what to do.
    """
    fixture = load(form, folder)
    if fixture["version"] == form.version and (names := changed(form, fixture)):
        raise Unraised(
            f"{form.name}: other bytes of {', '.join(names)}. If their form was not to change, undo it."
            f" If it was, raise {form.constant} (now {form.version}), then run `{COMMAND}`."
        )


def replace(form: Format, folder: Path = FOLDER) -> None:
    """Write the fixture of a format.

    Raises:
        Unraised: the version stands for other bytes already.
    """
    check(form, folder)
    text = json.dumps(fixture_of(form), indent=1, ensure_ascii=False) + "\n"
    (folder / f"{form.name}.json").write_text(text)


def main() -> None:
    for form in FORMATS:  # all, before the first is written: fixtures share their signatures
        check(form)
    for form in FORMATS:
        replace(form)
    save_signatures()


if __name__ == "__main__":
    try:
        main()
    except Unraised as error:
        sys.exit(str(error))
