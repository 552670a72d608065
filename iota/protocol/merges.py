"""What a merge leaves out, and what a MERGE receipt commits to."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from blake3 import blake3


class LeftOut(StrEnum):
    """Why a contribution is not in a merge. All but MISSING follow from its bytes: anyone can check them."""

    UNREADABLE = "unreadable"
    """The bytes are not those announced, or no partition of this size."""
    NOT_FINITE = "not_finite"
    """It holds NaN or infinity."""
    OUT_OF_BOUNDS = "out_of_bounds"
    """It is more than the optimizer can change in the replica's steps (`iota.outer.bounds`)."""
    OPPOSED = "opposed"
    """It goes against the others (`iota.outer.direction`), which is no proof of a lie."""
    MISSING = "missing"
    """It was not stored and announced before the deadline, or the store has lost it since. No merger may say
    so; the orchestrator does."""

    @property
    def is_sound(self) -> bool:
        """Whether the contribution is whole and possible all the same: an own start may be made of it."""
        return self is LeftOut.OPPOSED


def merge_output(digest: str, left_out: Mapping[str, LeftOut]) -> str:
    """The output of a MERGE receipt: BLAKE3 (hex) over the merged part's digest and what was left out.

    So a merger signs both, and cannot say later that it left out something else.
    """
    lines = [digest, *(f"{hotkey} {left_out[hotkey].value}" for hotkey in sorted(left_out))]
    return blake3("\n".join(["merge/1", *lines]).encode()).hexdigest()
