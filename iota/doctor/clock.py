"""Compares this machine's clock with the chain's newest block and the orchestrator's answer. Pure."""

from __future__ import annotations

from typing import Final

from iota.doctor.facts import Facts, OrchestratorFacts, Unknown
from iota.doctor.finding import Finding, ok, problem, warning

ALLOWED_S: Final = 3.0
"""Requests signed 2 s ahead are refused (`iota.identity.http_auth`); HTTP Date adds an error of 1 s."""
_LATE_BLOCKS: Final = 3
"""Largest age of the newest block, in block times, if node and clock are right."""
_REMEDY: Final = "set it: `sudo timedatectl set-ntp true`, then `timedatectl status`"


def clock(facts: Facts) -> Finding:
    """Compare this machine's clock with the orchestrator's and with the newest block's time.

    A block from the future means that this clock is behind. An old block means that this clock is ahead or
    that the chain node lags; the orchestrator's clock decides between the two.
    """
    seen = facts.orchestrator
    ahead_s = seen.clock_ahead_s if isinstance(seen, OrchestratorFacts) else None
    age_s, late_s = facts.chain.head_age_s, _late_s(facts)
    if ahead_s is not None and abs(ahead_s) > ALLOWED_S:
        return _wrong(ahead_s, f"the orchestrator's at {facts.orchestrator_endpoint}")
    if age_s is not None and age_s < -ALLOWED_S:
        return _wrong(age_s, "the chain's newest block")
    if age_s is not None and late_s is not None and age_s > late_s and not _confirmed(facts):
        return problem(
            "clock",
            f"the chain's newest block is {age_s:.0f} s old: either this clock is ahead, or its node lags",
            f"look with `timedatectl status`; if it is ahead, {_REMEDY}; if it is right, give another node "
            "with --chain-endpoint",
        )
    if _confirmed(facts):
        return ok("clock", "agrees with the orchestrator's")
    if age_s is not None:
        return ok("clock", f"agrees with the chain: its newest block began {max(0.0, age_s):.0f} s ago")
    return warning(
        "clock",
        "no answer to compare it with",
        "look with `timedatectl status`, and run this again once the chain answers",
    )


def head(facts: Facts) -> Finding | None:
    """The finding on a chain node's lag; None where the finding on the clock covers it, or without facts."""
    block, age_s, late_s = facts.chain.head, facts.chain.head_age_s, _late_s(facts)
    if isinstance(block, Unknown) or age_s is None or late_s is None:
        return None
    if age_s <= late_s:
        return ok("chain head", f"block {block.number}, {max(0.0, age_s):.0f} s old")
    if not _confirmed(facts):
        return None
    return problem(
        "chain head",
        f"block {block.number} is {age_s:.0f} s old, and this clock is right: {facts.chain.endpoint} "
        "lags, or the chain stands still",
        "give another node with --chain-endpoint, or wait",
    )


def _confirmed(facts: Facts) -> bool:
    """True where the clock of another machine agrees with this one's."""
    seen = facts.orchestrator
    if not isinstance(seen, OrchestratorFacts) or seen.same_machine or seen.clock_ahead_s is None:
        return False
    return abs(seen.clock_ahead_s) <= ALLOWED_S


def _late_s(facts: Facts) -> float | None:
    """Seconds of age from which the newest block is old; None without the block time."""
    info = facts.chain.info
    return None if isinstance(info, Unknown) else _LATE_BLOCKS * info.block_time_s + ALLOWED_S


def _wrong(ahead_s: float, compared_with: str) -> Finding:
    side = "ahead of" if ahead_s > 0 else "behind"
    return problem(
        "clock",
        f"this machine's clock is {abs(ahead_s):.0f} s {side} {compared_with}: signed requests are refused",
        _REMEDY,
    )
