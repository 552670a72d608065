"""What the end of a process's log says about why it ended."""

from __future__ import annotations

import re
import signal
from pathlib import Path

from iota.console.redaction import one_line
from iota.system.signals import KILLED

_LAST_LINES = 8
_MAX_TAIL_BYTES = 16384
_MAX_REASON = 300
"""Characters of a reason: it has to fit on a screen."""
_ERROR = re.compile(r"^error: |^[\w.]+(Error|Exception|Exit|Failed|Lost)\b|\b(ERROR|CRITICAL)\b")


def log_size(path: Path) -> int:
    """Bytes of a log; 0 if there is none."""
    return path.stat().st_size if path.exists() else 0


def log_tail(path: Path) -> str:
    """The last lines of a log, each on an indented line of its own; empty if there is no log."""
    return "".join(f"\n    {line}" for line in _lines(path, 0)[-_LAST_LINES:])


def ended_because(code: int, log: Path, since: int = 0) -> str:
    """How a process ended, in a sentence: its exit code or signal, and the last error of its log.

    `since` is the size of the log when the process started: what is before is of other processes.
    """
    if code < 0:
        name = signal.Signals(-code).name
        memory = " (by the kernel, if memory ran out)" if -code == KILLED else ""
        return f"was ended by {name}{memory}"
    reason = last_error(log, since)
    return f"ended with code {code}" + (f": {reason}" if reason else "")


def last_error(log: Path, since: int = 0) -> str:
    """The last line of a log that states an error, else its last line; empty without any. No secrets."""
    lines = [line for line in _lines(log, since) if line.strip()]
    errors = [line for line in lines if _ERROR.search(line)]
    found = (errors or lines or [""])[-1]
    return one_line(found)[:_MAX_REASON]


def _lines(path: Path, since: int) -> list[str]:
    if not path.exists():
        return []
    with path.open("rb") as file:
        file.seek(max(since, log_size(path) - _MAX_TAIL_BYTES))
        return file.read().decode(errors="replace").splitlines()
