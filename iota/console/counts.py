"""A count with its noun: the one place that tells one from many."""

from __future__ import annotations

import re


def counted(count: int, noun: str) -> str:
    """`1 epoch`, `2 epochs`, `3 batches`, `4 tries`, `12,345 tokens`."""
    return f"{count:,} {noun if count == 1 else _plural(noun)}"


def _plural(noun: str) -> str:
    if re.search("(ss|sh|tch|x)$", noun):
        return f"{noun}es"
    return re.sub("([^aeiou])y$", r"\1ie", noun) + "s"
