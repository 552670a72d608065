"""Why an audit cannot end in a plain comparison."""

from __future__ import annotations


class Missing(Exception):
    """Evidence that cannot be had, and that no miner is known to have withheld: inconclusive."""


class Blame(Exception):
    """What `hotkey` signed, or failed to produce, is proof against it by itself."""

    def __init__(self, hotkey: str, seq: int, reason: str, *, expected: str = "", found: str = "") -> None:
        super().__init__(reason)
        self.hotkey, self.seq, self.reason = hotkey, seq, reason
        self.expected, self.found = expected, found


class Absent(Exception):
    """The miner is gone, and what only it has went with it: its work of the epoch stays unproven."""
