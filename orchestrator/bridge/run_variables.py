"""Variables that the run acts on, or writes itself: their types and bounds."""

from __future__ import annotations

from typing import Final

from iota.protocol.bridge import (
    BEST_HELDOUT,
    LR_FACTOR,
    MAX_LR_FACTOR,
    MIN_LR_FACTOR,
    PAUSED,
    RUN,
    Set,
    ValueKind,
    WriteRule,
)
from orchestrator.bridge.bridge import Bridge

_KINDS: Final = {PAUSED: ValueKind.BOOL, LR_FACTOR: ValueKind.FLOAT}
OWN: Final = frozenset({BEST_HELDOUT})
"""Written by the run alone."""


def is_of_run(name: str) -> bool:
    """Whether the run may act on a variable of this name."""
    return name.startswith(f"{RUN}/")


def is_typed(name: str) -> bool:
    """Whether the run prescribes the type of a variable of this name."""
    return name in _KINDS


def fault(op: Set) -> str | None:
    """Why the run could not act on this value, or None."""
    kind = _KINDS.get(op.name)
    if kind is None:
        return None
    if not kind.fits(op.value) or op.kind not in (None, kind) or op.rule is WriteRule.LOCK:
        return f"{op.name} is a {kind.value} without a lock"
    if op.name == LR_FACTOR and not MIN_LR_FACTOR <= float(str(op.value)) <= MAX_LR_FACTOR:
        return f"{op.name} is between {MIN_LR_FACTOR:g} and {MAX_LR_FACTOR:g} times the spec's rate"
    return None


def kind_of(op: Set) -> ValueKind:
    """The type that a new variable gets."""
    return op.kind or _KINDS.get(op.name) or ValueKind.of(op.value)


def is_paused(bridge: Bridge) -> bool:
    """Whether the operator has paused the run."""
    return bridge.value(PAUSED) == "true"


def lr_factor(bridge: Bridge) -> float:
    """The factor on the spec's learning rate that the operator has set; 1 where it has not."""
    return float(bridge.value(LR_FACTOR) or 1.0)
