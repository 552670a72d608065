"""Captured screens: the dashboard on terminals of several sizes. `python -m tests.support.screens` replaces
the files in `tests/golden/screens/`; read their diff, since a person reads the screens."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console

from iota.swarm.view import Shown, page
from tests.support.statuses import names_of, run_status

FOLDER = Path(__file__).parents[1] / "golden" / "screens"


def screen(status: dict[str, Any], width: int, height: int, number: int = 0, **more: Any) -> str:
    """The page as text on a terminal of `width` by `height`, without trailing blanks; `number` of members."""
    console = Console(record=True, width=width, height=height, file=io.StringIO())
    given = {
        "speed": 8123.0,
        "eta_s": 95.0,
        "names": names_of(status),
        "boundary": "32 bytes a token, 16x less than bf16",
        "page": number,
        **more,
    }
    console.print(page(status, Shown(**given), width, height - 1))
    return "\n".join(line.rstrip() for line in console.export_text().splitlines()) + "\n"


def screens() -> dict[str, str]:
    """Text by name of file."""
    waiting = "all epochs are trained; validator 5xyz still audits epoch 2, for 9 min at most"
    last = run_status(3, phase="finished", epoch=2, step=20, open_microbatches=0, waiting=waiting)
    none: dict[str, Any] = {"losses": [], "merges": [], "heldout": {}, "weights": {}, "verdicts": []}
    first = run_status(3, phase="gathering", epoch=0, step=0, waiting="stage 1 is loading its base", **none)
    return {
        "80x24_3_members.txt": screen(run_status(3), 80, 24),
        "80x24_7_members.txt": screen(run_status(7), 80, 24),
        "80x24_48_members_first.txt": screen(run_status(48), 80, 24),
        "80x24_48_members_last.txt": screen(run_status(48), 80, 24, 5),
        "80x24_last_audits.txt": screen(last, 80, 24, eta_s=None),
        "80x24_before_the_first_step.txt": screen(first, 80, 24, eta_s=None, speed=0.0),
        "200x24_7_members.txt": screen(run_status(7), 200, 24),
        "200x50_48_members.txt": screen(run_status(48), 200, 50),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in screens().items():
        (FOLDER / name).write_text(text)
