"""Sources of text: an ordered stream of documents that can be entered at any number."""

from __future__ import annotations

import platform
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})


@dataclass(frozen=True)
class Document:
    """One text of a source. `index` counts what the source holds, also what it skips."""

    index: int
    name: str
    text: str


class Source(Protocol):
    @property
    def name(self) -> str:
        """For people and manifests; without paths of this machine."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes when the documents may have changed, as far as that can be seen cheaply."""
        ...

    def documents(self, start: int = 0) -> Iterator[Document]:
        """Documents from number `start` on, in the one order; blank ones are left out.

        Raises:
            ValueError: if the source cannot be read, saying what to do.
        """
        ...


def open_source(spec: str) -> Source:
    """The source that `spec` names.

    `stdlib` is the Python standard library's own source code. `hf:DATASET[:CONFIG][:SPLIT]` is
    streamed by `datasets`. Anything else is a path: a folder or one file of text, .jsonl or .parquet.

    Raises:
        ValueError: if there is nothing of that name.
    """
    from iota.data.source_files import FileSource, find_files
    from iota.data.source_hub import HubSource

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


def clean(text: str) -> str:
    """`text` with what is no Unicode (lone surrogates, which JSON can smuggle in) replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
