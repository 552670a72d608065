"""Rules of a Bittensor subnet, as pure functions."""

from __future__ import annotations

from collections.abc import Mapping


def permits(stakes: Mapping[int, float], max_validators: int) -> frozenset[int]:
    """The uids with a validator permit: those with the greatest stakes above 0; ties go to the lower uid."""
    ranked = sorted((uid for uid, stake in stakes.items() if stake > 0), key=lambda uid: (-stakes[uid], uid))
    return frozenset(ranked[:max_validators])


def blocks_to_wait(last: int | None, block: int, limit: int) -> int:
    """Blocks from `block` until the rate limit allows another write after that in block `last`."""
    return 0 if last is None else max(0, last + limit - block)


def uid_to_prune(
    earned: Mapping[int, float], registered: Mapping[int, int], block: int, immunity: int, owner_uid: int
) -> int | None:
    """The uid that a registration in a full subnet takes over; None while all but the owner are immune.

    It is the one that earned least, and among equals the one registered first.
    """
    candidates = [uid for uid in earned if uid != owner_uid and block - registered[uid] >= immunity]
    return min(candidates, key=lambda uid: (earned[uid], registered[uid], uid), default=None)
