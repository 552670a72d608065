"""When a cheat began: it says so in its log, from which a table of detections counts."""

from __future__ import annotations

import logging
import re
from typing import Final

log = logging.getLogger(__name__)

_TOLD: set[str] = set()
"""Filled by the first lie of this process."""
_LINE: Final = re.compile(r"lies from epoch (\d+) step (\d+)")


def lied(epoch: int, step: int) -> None:
    """Note a false op of `step`; of a pseudo-gradient, a merge or a word, of the epoch's number of steps."""
    if not _TOLD:
        line = f"lies from epoch {epoch} step {step}"
        _TOLD.add(line)
        log.warning("%s", line)


def first_lie(text: str, steps: int) -> int | None:
    """The inner step of the run at which a cheat began, by its log; None if it never lied."""
    found = _LINE.search(text)
    return None if found is None else int(found[1]) * steps + int(found[2])
