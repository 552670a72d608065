"""docs/conditions.md has a row for each condition, and no other."""

from __future__ import annotations

from pathlib import Path

from iota.console.conditions import Condition
from iota.console.conditions_page import table

PAGE = Path(__file__).parents[2] / "docs" / "conditions.md"


def test_the_table_of_the_page_is_that_of_the_code() -> None:
    """Otherwise put the output of `python -m iota.console.conditions_page` into the page."""
    lines = PAGE.read_text().splitlines()
    head, *_ = table().splitlines()
    start = lines.index(head)
    end = next(n for n, line in enumerate(lines[start:], start) if not line.startswith("|"))
    assert "\n".join(lines[start:end]) + "\n" == table()
    assert end - start == len(Condition) + 2
