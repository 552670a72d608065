"""Sources of text: an ordered stream of documents that can be resumed at any document number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Document:
    """One text of a source. `index` is its number in the source; blank documents are numbered too."""

    index: int
    name: str
    text: str


TEXT_FIELD = "text"
"""The field that holds the text in a row of JSON lines, parquet or a Hub data set."""


class Source(Protocol):
    """An ordered, repeatable stream of documents."""

    @property
    def name(self) -> str:
        """Name for messages and the manifest. It contains no local path, so that manifests are portable."""
        ...

    @property
    def fingerprint(self) -> str:
        """Cheap identity of the content, for instance file sizes and times. A change makes a new job."""
        ...

    def documents(self, start: int = 0) -> Iterator[Document]:
        """Documents from number `start` on, in a fixed order. Blank ones are skipped.

        Raises:
            ValueError: if the source cannot be read; the text says what to do.
        """
        ...


def clean(text: str) -> str:
    """`text` with "?" for each lone surrogate, which JSON escapes can contain and UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
