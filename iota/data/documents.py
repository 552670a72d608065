"""A source of text: an ordered stream of documents that can be entered at any number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


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


def clean(text: str) -> str:
    """`text` with what is no Unicode (lone surrogates, which JSON can smuggle in) replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text
