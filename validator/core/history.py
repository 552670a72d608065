"""What this validator has decided so far, also in earlier processes: nothing is decided twice."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class History:
    """Read from the database at the start of a membership, and kept up by the core."""

    audited: set[int] = field(default_factory=set)
    """Epochs whose verdicts are all filed."""
    filed: set[tuple[int, str, str]] = field(default_factory=set)
    """(epoch, miner, name of the task) of every verdict."""
    heldout: dict[int, float] = field(default_factory=dict)
    """Held-out loss of the base of each epoch, nats a token."""
