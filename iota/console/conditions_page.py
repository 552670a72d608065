"""Makes the table of docs/conditions.md: `python -m iota.console.conditions_page`."""

from __future__ import annotations

import sys

from iota.console.conditions import Condition
from iota.console.durations import duration

_HEAD = "| condition | the node says | pause | ends after | who must act | how |\n|---|---|---|---|---|---|\n"


def table() -> str:
    """One row for each condition."""
    return _HEAD + "".join(map(_row, Condition))


def _row(condition: Condition) -> str:
    pauses = condition.backoff
    first, most = duration(pauses.first_s), duration(pauses.max_s)
    pause = most if first == most else f"{first} to {most}"
    cells = (f"`{condition.value}`", condition.text, pause, duration(condition.end_s))
    return f"| {' | '.join((*cells, condition.who, condition.remedy))} |\n"


if __name__ == "__main__":
    sys.stdout.write(table())
