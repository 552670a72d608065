"""Documents from local files: text, JSON lines and parquet."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path

from blake3 import blake3

from iota.data.documents import TEXT_FIELD, Document, clean

_CODE = ".c .cc .cpp .css .go .h .hpp .html .java .js .py .rs .sh .sql .toml .ts .xml .yaml .yml"
SUFFIXES = frozenset(f".md .rst .tex .txt {_CODE}".split()) | {".jsonl", ".parquet"}
PIECE_CHARACTERS = 4096
"""Least length of the documents that a single text file is cut into. It decides the data's bytes."""


class FileSource:
    """The documents of `files`, in order of their path relative to `root`.

    Each text file is one document. A single text file is cut into documents at blank lines, since some
    have to be held out. In .jsonl and .parquet files each row is a document, by its field `text`.

    Raises:
        ValueError: if `files` is empty.
    """

    def __init__(self, name: str, root: Path, files: Sequence[Path]) -> None:
        self.name = name
        self._root = root
        self._files = sorted(files, key=lambda path: path.relative_to(root).as_posix())
        self._cut = len(self._files) == 1
        if not self._files:
            kinds = " ".join(sorted(SUFFIXES))
            raise ValueError(f"there is no text in {root}: put files there that end in one of {kinds}")

    @property
    def fingerprint(self) -> str:
        digest = blake3(self.name.encode())
        for path in self._files:
            status = path.stat()
            digest.update(f"\n{self._relative(path)} {status.st_size} {status.st_mtime_ns}".encode())
        return digest.hexdigest()

    def documents(self, start: int = 0) -> Iterator[Document]:
        index = 0
        for path in self._files:
            for name, text in self._texts(path):
                if index >= start and text.strip():
                    yield Document(index, name, clean(text))
                index += 1

    def _texts(self, path: Path) -> Iterator[tuple[str, str]]:
        where = self._relative(path)
        try:
            if path.suffix == ".jsonl":
                yield from _numbered(where, _json_rows(path))
            elif path.suffix == ".parquet":
                yield from _numbered(where, _parquet_rows(path))
            elif self._cut:
                yield from _numbered(where, _pieces(path))
            else:
                yield where, path.read_bytes().decode("utf-8", "replace")
        except OSError as error:
            raise ValueError(f"{where} cannot be read: {error.strerror or error}") from error

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def find_files(root: Path, skipped: Set[str], suffixes: Set[str] = SUFFIXES) -> list[Path]:
    """Files below `root` with one of `suffixes`. Hidden folders and those named in `skipped` are left out."""
    found: list[Path] = []
    for where, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in skipped and not name.startswith(".")]
        found += [Path(where, name) for name in names if Path(name).suffix in suffixes]
    return found


def _numbered(where: str, texts: Iterable[str]) -> Iterator[tuple[str, str]]:
    return ((f"{where}:{number}", text) for number, text in enumerate(texts))


def _json_rows(path: Path) -> Iterator[str]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                text = json.loads(line)[TEXT_FIELD] if line.strip() else ""
            except (ValueError, KeyError, TypeError) as error:
                raise _no_text(f"line {number} of {path.name}") from error
            if not isinstance(text, str):
                raise _no_text(f"line {number} of {path.name}")
            yield text


def _parquet_rows(path: Path) -> Iterator[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        if TEXT_FIELD not in file.schema_arrow.names:
            raise _no_text(path.name)
        for batch in file.iter_batches(batch_size=1024, columns=[TEXT_FIELD]):
            for value in batch.column(0):
                text = value.as_py()
                yield "" if text is None else str(text)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path.name} is no readable parquet file: {error}") from error


def _pieces(path: Path) -> Iterator[str]:
    """The file cut after a blank line, or after any line once a piece has four times the least length."""
    piece: list[str] = []
    size = 0
    with path.open(encoding="utf-8", errors="replace", newline="") as lines:
        for line in lines:
            piece.append(line)
            size += len(line)
            if size >= PIECE_CHARACTERS and (line.isspace() or size >= 4 * PIECE_CHARACTERS):
                yield "".join(piece)
                piece, size = [], 0
    if piece:
        yield "".join(piece)


def _no_text(where: str) -> ValueError:
    return ValueError(f"{where} has no text: every row needs a string in its field {TEXT_FIELD!r}")
