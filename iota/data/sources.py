"""Opens a source of text by its name on the command line."""

from __future__ import annotations

import platform
import sysconfig
from pathlib import Path

from iota.data.documents import Source
from iota.data.source_files import FileSource, find_files
from iota.data.source_hub import HubSource

SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
"""Tests and installed packages: they differ between machines with the same Python version."""


def open_source(spec: str) -> Source:
    """The source that `spec` names.

    `stdlib` is the source code of the Python standard library. `hf:DATASET[:CONFIG][:SPLIT]` is
    streamed by `datasets`. Any other value is a path: a folder, or one text, .jsonl or .parquet file.

    Raises:
        ValueError: if the path does not exist, has no text, or is a malformed `hf:` name.
    """
    if spec == "stdlib":
        root = Path(sysconfig.get_paths()["stdlib"])
        # `_sysconfigdata` contains local paths, so it differs between machines.
        files = [p for p in find_files(root, SKIPPED_FOLDERS, {".py"}) if "_sysconfigdata" not in p.name]
        return FileSource(f"stdlib-{platform.python_version()}", root, files)
    if spec.startswith("hf:"):
        return HubSource.parse(spec)
    path = Path(spec)
    if path.is_file():
        return FileSource(path.name, path.parent, [path])
    if path.is_dir():
        return FileSource(path.resolve().name, path, find_files(path, frozenset({"__pycache__"})))
    raise ValueError(
        f"there is no source {spec!r}: give 'stdlib', hf:DATASET, or the path of a file or folder"
    )
