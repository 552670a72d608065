"""Writes the commented TOML file of a spec: a line for each value, which `--spec FILE` reads.

TOML, since Python's standard library reads it and it has comments; JSON has none, and YAML needs a package.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from typing import Any

from iota.settings.spec_flags import default_of
from iota.spec import RunSpec
from iota.spec.draft import DRAFT_ONLY, Draft, value_at, values_of
from iota.spec.spec_fields import spec_fields

_HEAD = """\
# The values of a run's spec, for `iota spec --spec FILE` and `iota up --spec FILE`. A value behind a `#` is
# what is proposed for this model: take the `#` away to change it. Flags and --set win over this file.
"""
_WIDTH = 100


def template(spec: RunSpec, given: Draft) -> str:
    """The file for `spec`, in which the values that were `given` are set and the others commented out."""
    set_paths = {path for path, _ in values_of(given)}
    proposed = {**spec.model_dump(mode="json")}
    helps = {path: field.help for path, field in spec_fields().items()} | DRAFT_ONLY
    parts, table = [_HEAD], ""
    for path in sorted(helps, key=lambda path: _place(path)):
        head, _, name = path.rpartition(".")
        if head != table:
            table = head
            parts.append(f"\n[{table}]\n")
        field = spec_fields().get(path)
        default = "" if field is None else f" Default: {default_of(field)}."
        parts.append(
            "\n" + textwrap.fill(helps[path] + default, _WIDTH, initial_indent="# ", subsequent_indent="# ")
        )
        value = value_at(given if path in set_paths else proposed, path)
        if value is None and field is not None and not field.optional:
            value = field.default  # in a part that the spec does not have
        if value is None and path == "layout.stages":
            value = spec.layout.stages
        if value is None and path == "model.preset":
            value = spec.name
        parts.append(f"\n{'' if path in set_paths else '#'}{name} = {_toml(value)}\n")
    return "".join(parts)


def _place(path: str) -> tuple[int, int, int, bool]:
    """Order in the file: single values before tables, as TOML wants it; then the order of the spec."""
    sections: Mapping[str, Any] = RunSpec.model_fields
    section = path.partition(".")[0]
    depth = path.count(".")
    return min(depth, 1), list(sections).index(section), depth, path not in DRAFT_ONLY


def _toml(value: Any) -> str:
    """A value in TOML, which has JSON's text for these; None as the text `none`."""
    return json.dumps("none" if value is None else value)
