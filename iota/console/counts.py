"""Counts with their nouns: the one place that tells one from many."""

from __future__ import annotations

from typing import Final

_ODD: Final = {
    "child": "children",
    "does": "do",
    "entry": "entries",
    "has": "have",
    "is": "are",
    "its": "their",
    "process": "processes",
    "was": "were",
}


def counted(count: int, noun: str) -> str:
    """`1 epoch`, `2 epochs`, `12,345 tokens`. The last word of `noun` is the one that changes."""
    return f"{count:,} {plural(count, noun)}"


def plural(count: int, noun: str) -> str:
    """`noun`, a noun or a verb such as `is`, in the form that goes with `count`."""
    if count == 1:
        return noun
    before, blank, last = noun.rpartition(" ")
    if last in _ODD:
        return f"{before}{blank}{_ODD[last]}"
    if last.endswith(("ss", "sh", "tch", "x")):
        return f"{noun}es"
    return f"{noun}s"
