"""The loss curve as text: an axis of steps, the merges, the held-out losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from rich.text import Text

_BARS = " ▁▂▃▄▅▆▇█"
_LABEL = 8
"""Characters of the loss scale to the left, its blank included."""
_WIDEST = 4
"""Most columns of one step, while there are few."""
_LARGEST = 1e30
"""Losses beyond it are drawn there, so that their sums and differences stay finite."""
_TICK = 20
"""Least columns between two numbers of the step axis."""


def loss_chart(
    losses: Sequence[float],
    width: int,
    height: int,
    *,
    first: int = 0,
    merges: Sequence[int] = (),
    heldout: Mapping[int, float] | None = None,
) -> Text:
    """The chart: `height` lines of at most `width` columns, the last two the axis and its numbers.

    Args:
        losses: mean loss by step, nats a token.
        first: number of the first of them.
        merges: numbers of losses before each merge.
        heldout: number of losses before the merge that made a base -> the base's held-out loss.
    """
    if not losses:
        return Text("no step has been closed yet", style="dim")
    rows, columns = max(1, height - 2), min(max(1, width - _LABEL), _WIDEST * len(losses))
    # A column is the mean over its share of the steps, so that the whole run fits.
    edges = [i * len(losses) // columns for i in range(columns + 1)]
    shares = [losses[a : max(a + 1, b)] for a, b in pairwise(edges)]
    values = [sum(map(_drawn, share)) / len(share) for share in shares]

    def column(number: int) -> int | None:
        """The column in which the steps before `number` end; None for steps that are not shown."""
        place = number - first
        return min(columns - 1, max(0, place * columns // len(losses) - 1)) if place >= 0 else None

    points = {at: _drawn(loss) for n, loss in (heldout or {}).items() if (at := column(n)) is not None}
    low, high = min([*values, *points.values()]), max([*values, *points.values()])
    span = (high - low) or 1.0
    text = Text(no_wrap=True)
    for row in reversed(range(rows)):
        text.append(f"{_label(low + span * (row + 0.5) / rows):>{_LABEL - 1}} ", style="dim")
        for at, value in enumerate(values):
            point = points.get(at)
            if point is not None and row == min(rows - 1, int((point - low) / span * rows)):
                text.append("●", style="magenta")
                continue
            cell = max(0.0, min(1.0, (value - low) / span * rows - row))
            floor = "▁" if row == 0 else " "
            text.append(_BARS[math.ceil(cell * 8)] if cell > 0 else floor, style="cyan")
        text.append("\n")
    marks = {column(n) for n in merges}
    line = "".join("▲" if at in marks else "─" for at in range(columns))
    text.append(f"{' ' * (_LABEL - 1)}└{line}\n", style="dim")
    return text.append(" " * _LABEL + _numbers(first, edges, columns), style="dim")


def _drawn(loss: float) -> float:
    return max(-_LARGEST, min(_LARGEST, loss))


def _label(loss: float) -> str:
    text = f"{loss:.3f}"
    return text if len(text) < _LABEL else f"{loss:.0e}"


def _numbers(first: int, edges: list[int], columns: int) -> str:
    """Numbers of steps below the axis: the first, the last, and some between."""
    last = str(first + edges[-1])
    line = ""
    for at in range(0, columns, _TICK):
        number = str(first + edges[at] + 1)
        if at + len(number) + 1 > columns - len(last) and at:
            break
        line = line.ljust(at) + number
    return f"{line.ljust(columns - len(last))}{last}" if len(line) + len(last) < columns else line
