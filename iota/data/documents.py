"""Sources of text: an ordered stream of documents, which can be resumed after any of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

Cursor = Any
"""A place in a source, as JSON. Only the source that made it reads it; None is the beginning."""


@dataclass(frozen=True)
class Document:
    """A document of a source, or one part of a long one.

    The parts of a document follow each other, and their texts add up to its text.
    """

    name: str
    """Where it lies in the source, for instance `a.jsonl:17`. No other document has the name."""
    text: str
    after: Cursor
    """The place after it: reading from there gives what follows."""
    part: int = 0
    last: bool = True
    """Whether no part follows."""


class Source(Protocol):
    """An ordered, repeatable stream of documents."""

    @property
    def name(self) -> str:
        """Name for messages and the manifest. It contains no local path, so that manifests are portable."""
        ...

    @property
    def fingerprint(self) -> str:
        """What identifies the content wherever it lies: the Hub's commit, or a digest of names and sizes."""
        ...

    @property
    def identity(self) -> str:
        """What changes with the documents: the fingerprint, modification times, and the rules of reading."""
        ...

    @property
    def left_out(self) -> str:
        """A sentence on the files that are left out; "" if there are none."""
        ...

    def read(self, start: Cursor, skipped: Counter[str]) -> Iterator[Document]:
        """Documents from `start` on, in a fixed order.

        Args:
            start: `Document.after` of an earlier reading, or None.
            skipped: counts each row that is left out, under its reason.

        Raises:
            ValueError: if the source cannot be read, or a row is not as its rules demand; the text says
                where, and what to do.
        """
        ...

    def fraction(self, at: Cursor) -> float | None:
        """Share of the source that lies before `at`, for progress alone; None if it is not known."""
        ...
