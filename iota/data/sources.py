"""Opens sources of text by their names on the command line."""

from __future__ import annotations

import platform
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from iota.data.documents import Source
from iota.data.rows import DEFAULT_RULES, RowRules
from iota.data.source_files import FileSource, check_inside, find_files
from iota.data.source_hub import HubSource

SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
"""Tests and installed packages: they differ between machines with the same Python version."""
STDLIB_PART = 1 << 11
"""Most characters of a part of the standard library, which has few and long files: the held-out loss of small
runs needs many held-out texts for a small standard error."""


@dataclass(frozen=True)
class Weighted:
    """A source, and its share of the tokens of a mixture."""

    source: Source
    weight: float = 1.0


def open_sources(specs: Sequence[str], rules: RowRules = DEFAULT_RULES) -> list[Weighted]:
    """The sources that `specs` name: one, or several, each as SOURCE=WEIGHT. Weights are scaled to sum 1.

    Raises:
        ValueError: for a weight that is missing or not positive, a source that is named twice, and as
            `open_source`.
    """
    if not specs:
        raise ValueError("give a source: stdlib, hf:DATASET, or the path of a file or folder")
    if len(specs) == 1 and not _has_weight(specs[0]):
        return [Weighted(open_source(specs[0], rules))]
    found: dict[str, float] = {}
    for spec in specs:
        name, _, weight = spec.rpartition("=")
        if not _has_weight(spec):
            raise ValueError(f"{spec!r} has no weight: write several sources as SOURCE=WEIGHT, like a=0.7")
        if name in found:
            raise ValueError(f"{name} is named twice: give it once, with the sum of the weights")
        found[name] = float(weight)
    total = sum(found.values())
    return [Weighted(open_source(name, rules), weight / total) for name, weight in found.items()]


def open_source(spec: str, rules: RowRules = DEFAULT_RULES) -> Source:
    """The source that `spec` names.

    `stdlib` is the source code of the Python standard library. `hf:DATASET[@REVISION][:CONFIG][:SPLIT]` is
    streamed by `datasets`. Any other value is the path of a file or folder.

    Raises:
        ValueError: if the path does not exist, has no text, or is a malformed `hf:` name.
    """
    if spec == "stdlib":
        root = Path(sysconfig.get_paths()["stdlib"])
        # `_sysconfigdata` contains local paths, so it differs between machines.
        files = [p for p in find_files(root, SKIPPED_FOLDERS) if p.suffix == ".py"]
        files = [p for p in files if "_sysconfigdata" not in p.name]
        return FileSource(f"stdlib-{platform.python_version()}", root, files, rules, STDLIB_PART)
    if spec.startswith("hf:"):
        return HubSource.parse(spec, rules)
    path = Path(spec)
    if path.is_file():
        return FileSource(path.name, path.parent, [path], rules)
    if path.is_dir():
        files = find_files(path, frozenset({"__pycache__"}))
        check_inside(path, (file for file in files if file.is_symlink()))
        return FileSource(path.resolve().name, path, files, rules)
    raise ValueError(
        f"there is no source {spec!r}: give 'stdlib', hf:DATASET, or the path of a file or folder"
    )


def _has_weight(spec: str) -> bool:
    name, equals, weight = spec.rpartition("=")
    if not equals or not name or Path(spec).exists():
        return False
    try:
        value = float(weight)
    except ValueError:
        return False
    if not (isfinite(value) and value > 0):
        raise ValueError(f"{spec!r} has the weight {weight}: give one above 0")
    return True
