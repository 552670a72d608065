"""Documents from local files of any format that `file_formats` knows."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path

from iota.console.counts import counted
from iota.console.redaction import printable
from iota.data.documents import Cursor, Document
from iota.data.file_formats import FileKind, Format, check_head, file_kind, open_file
from iota.data.row_files import csv_rows, json_line_rows, json_rows, parquet_rows, with_field
from iota.data.rows import UTF8, Broken, Row, RowRules, Skip
from iota.data.text_parts import PART_CHARACTERS, decoded_chunks, parts
from iota.spec import json_digest

_SHOWN = 5
"""Names of skipped files in a message."""


class FileSource:
    """The documents of `files`, in order of their path relative to `root`.

    Each text file is one document, each row of the other formats too. Files that are no text are left out,
    counted and named in `left_out`.

    Raises:
        ValueError: if nothing is left to read, if `rules.strict` refuses what is left out, or if a file
            cannot be read.
    """

    def __init__(
        self, name: str, root: Path, files: Sequence[Path], rules: RowRules, part: int = PART_CHARACTERS
    ) -> None:
        """`part` is the most characters of a part of a long text."""
        self.name = name
        self._root, self._rules, self._part = root, rules, part
        self._files: list[tuple[Path, FileKind]] = []
        self._unread: list[str] = []
        for path in sorted(files, key=self._relative):
            _check_name(self._relative(path))
            kind = self._kind(path)
            if kind is None:
                self._unread.append(self._relative(path))
            else:
                self._files.append((path, kind))
        if self._unread and rules.strict:
            raise ValueError(f"{name}: {self.left_out}; --strict refuses them")
        if not self._files:
            raise ValueError(f"there is no text in {name}{f': {self.left_out}' if self._unread else ''}")
        self._ends = list(accumulate(path.stat().st_size for path, _ in self._files))

    @property
    def left_out(self) -> str:
        if not self._unread:
            return ""
        more = ", ..." if len(self._unread) > _SHOWN else ""
        names = ", ".join(self._unread[:_SHOWN])
        count = len(self._unread)
        return printable(f"{counted(count, 'file')} skipped (no text): {names}{more}")

    @property
    def fingerprint(self) -> str:
        return "files-" + json_digest(
            [[self._relative(path), path.stat().st_size] for path, _ in self._files]
        )

    @property
    def identity(self) -> str:
        times = [str(path.stat().st_mtime_ns) for path, _ in self._files]
        own = [] if self._part == PART_CHARACTERS else [self._part]
        return json_digest([self.name, self.fingerprint, times, asdict(self._rules), *own])

    def fraction(self, at: Cursor) -> float | None:
        file, _, offset, _ = at or (0, 0, 0, 0)
        if file == len(self._ends):
            return 1.0
        before = self._ends[file - 1] if file else 0
        return min(before + offset, self._ends[file]) / max(1, self._ends[-1])

    def read(self, start: Cursor, skipped: Counter[str]) -> Iterator[Document]:
        # The cursor is (file, row, the byte where the row begins, part of the row).
        if start is None:
            skipped.update({Skip.FILE: len(self._unread)} if self._unread else {})
            start = (0, 0, 0, 0)
        file, row, offset, part = start
        for number in range(file, len(self._files)):
            _, kind = self._files[number]
            if kind.format is Format.TEXT:
                yield from self._text(number, part, skipped)
            else:
                yield from self._rows(number, row, offset, part, skipped)
            row = offset = part = 0

    def _text(self, number: int, first: int, skipped: Counter[str]) -> Iterator[Document]:
        """The parts of a text file from part `first` on."""
        path, kind = self._files[number]
        where, rules = self._relative(path), self._rules
        if rules.skip_bad and not first and (problem := _problem(path, kind, rules)) is not None:
            rules.text(problem, where, skipped)
            return
        count = size = 0
        chunks = _chunks(path, kind, rules.encoding, where)
        for count, (text, last) in enumerate(parts(chunks, self._part), 1):
            size += len(text)
            if count == 1 and last and rules.text(text, where, skipped) is None:
                return
            if count > first:
                after = [number + 1, 0, 0, 0] if last else [number, 0, size, count]
                yield Document(where, text, after, count - 1, last)
        if not count:
            rules.text("", where, skipped)

    def _rows(
        self, number: int, start: int, offset: int, part: int, skipped: Counter[str]
    ) -> Iterator[Document]:
        """The documents of the rows from row `start` on, which begins at `offset`; of it, from `part` on."""
        path, kind = self._files[number]
        file, rules = self._relative(path), self._rules
        unit = "line" if kind.format is Format.LINES else "row"
        for row in _read_rows(path, kind, rules, file, start, offset):
            text = rules.text(row.value, f"{file}: {unit} {row.number + 1}", skipped)
            for count, (piece, last) in enumerate(parts([text] if text else [], self._part), 1):
                if count > part or row.number > start:
                    inside = [number, row.number, row.begin, count]
                    after = [number, row.number + 1, row.end, 0] if last else inside
                    yield Document(f"{file}:{row.number}", piece, after, count - 1, last)

    def _kind(self, path: Path) -> FileKind | None:
        try:
            return file_kind(path, self._rules.encoding) if path.is_file() else None
        except OSError as error:
            raise _unreadable(self._relative(path), error) from error

    def _relative(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def find_files(root: Path, skipped: Set[str]) -> list[Path]:
    """Files below `root`. Hidden files and folders, and folders named in `skipped`, are left out."""
    found: list[Path] = []
    for where, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in skipped and not name.startswith(".")]
        found += [Path(where, name) for name in names if not name.startswith(".")]
    return found


def check_inside(root: Path, files: Iterable[Path]) -> None:
    """Refuse files that lie outside `root`: they would be trained on, and given to all members.

    A folder of others, such as a repository, may link to a key of whoever prepares it, or name it as data. In
    the cache of the Hugging Face Hub, files of `snapshots/COMMIT` link into the `blobs` beside `snapshots`.

    Raises:
        ValueError: the first that does.
    """
    inside = [root.resolve()]
    inside += [
        p.parents[1] / "blobs" for p in (inside[0], *inside[0].parents) if p.parent.name == "snapshots"
    ]
    for path in files:
        place = path.resolve()
        if not any(place.is_relative_to(folder) for folder in inside):
            how = "is a link out of" if path.is_symlink() else "lies outside of"
            raise ValueError(
                f"{path} {how} {root}, at {place}: give that as a source of its own, or put a copy in its"
                " place"
            )


def _read_rows(
    path: Path, kind: FileKind, rules: RowRules, where: str, start: int, offset: int
) -> Iterator[Row]:
    """The rows of a file from `start` on. Raises `ValueError`, with the file's name, if it cannot be read."""
    try:
        if kind.format is Format.PARQUET:
            if kind.compression:
                raise ValueError(f"is parquet inside {kind.compression}: decompress it")
            yield from parquet_rows(path, rules, start)
            return
        with open_file(path, kind.compression) as file:
            if rules.encoding == UTF8:
                check_head(file.peek(4))
            if kind.format is Format.CSV:
                yield from csv_rows(file, rules, start, path.suffixes)
                return
            if kind.format is Format.JSON:
                rows = json_rows(file, rules, start)
            else:
                seekable = kind.compression is None and rules.encoding == UTF8
                rows = json_line_rows(file, rules, start, offset if seekable else 0)
            # After a resume, earlier rows had the field.
            yield from rows if start or rules.skip_bad else with_field(rows, rules)
    except OSError as error:
        raise _unreadable(where, error) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{where} is not {rules.encoding}: {error.reason}") from error
    except ValueError as error:
        raise ValueError(f"{where} {error}") from error


def _chunks(path: Path, kind: FileKind, encoding: str, where: str) -> Iterator[str]:
    """The text of a file. Raises `ValueError`, with the file's name, if it cannot be read."""
    try:
        with open_file(path, kind.compression) as file:
            yield from decoded_chunks(file, encoding)
    except OSError as error:
        raise _unreadable(where, error) from error
    except ValueError as error:
        raise ValueError(f"{where} {error}") from error


def _problem(path: Path, kind: FileKind, rules: RowRules) -> Broken | None:
    """What is wrong with a text file. It is read whole, so that none of a broken one's parts is taken."""
    try:
        with open_file(path, kind.compression) as file:
            for _ in decoded_chunks(file, rules.encoding):
                pass
    except ValueError as error:
        return Broken(str(error))
    return None


def _check_name(name: str) -> None:
    """Refuse a file's name that is no Unicode, which no manifest can hold. Raises `ValueError`."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the name of the file {name!a} is not UTF-8: rename it") from None


def _unreadable(where: str, error: OSError) -> ValueError:
    return ValueError(f"{where} cannot be read: {error.strerror or error}")
