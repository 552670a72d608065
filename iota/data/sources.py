"""Opens a source of text by name."""

from __future__ import annotations

import platform
import sysconfig
from pathlib import Path

from iota.data.documents import Source
from iota.data.source_files import FileSource, find_files
from iota.data.source_hub import HubSource

SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})


def open_source(spec: str) -> Source:
    """The source that `spec` names.

    `stdlib` is the Python standard library's own source code. `hf:DATASET[:CONFIG][:SPLIT]` is
    streamed by `datasets`. Anything else is a path: a folder or one file of text, .jsonl or .parquet.

    Raises:
        ValueError: if there is nothing of that name.
    """
    if spec == "stdlib":
        root = Path(sysconfig.get_paths()["stdlib"])
        # `_sysconfigdata` differs on each machine by the paths it holds.
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
