"""How long things take, in words, and how often a process says how it gets on."""

from __future__ import annotations

from typing import Final

LINE_EVERY_S: Final = 30.0
"""Seconds between two lines, in logs and off terminals: of a process that works, and of one that waits."""
_UNITS: Final = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


def duration(seconds: float) -> str:
    """`seconds` in its two largest units, such as `95 s`, `4 min` or `2 h 5 min`; `0.5 s` below 10 s."""
    if seconds < 10:
        return f"{round(seconds, 1):g} s"
    rest, parts = round(seconds), []
    if rest < 120:
        return f"{rest} s"
    for size, unit in _UNITS:
        count, left = divmod(rest, int(size))
        if count:
            parts.append(f"{count} {unit}")
            rest = left
    return " ".join(parts[:2])
