"""What a miner thinks of a frame that somebody wants to push to it, before it reads the payload."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from iota.wire.frame import FrameHeader


class Expectation(StrEnum):
    """What a miner thinks of a pushed frame by its header alone."""

    EXPECTED = "expected"
    """It is from the neighbour, by hotkey and attempt, that the share or a re-route names, and is needed."""
    EARLY = "early"
    """Its plan, or the re-route that names its attempt, is not heard yet: it may come."""
    OVER = "over"
    """Nothing here needs it any more, or it is here already.

    The same bytes as those of the name's first frame on disk are acknowledged again; others are not taken.
    """
    WRONG = "wrong"
    """The plan names another sender, or nothing here can ever need it."""


Expects = Callable[[FrameHeader], Expectation]
"""Says what a miner thinks of a pushed frame. It takes no time, and is asked on the event loop."""
EarliestStep = Callable[[], tuple[int, int]]
"""(epoch, step) of the earliest step that the miner has not applied: its frames come before all others."""
