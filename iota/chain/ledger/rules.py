"""The ledger's decisions as pure functions, after the rules of a Bittensor subnet."""

from __future__ import annotations

from collections.abc import Mapping


def permits(stakes: Mapping[int, float], max_validators: int) -> frozenset[int]:
    """The uids that may set weights: those of the greatest stakes above zero, in a tie the lower uid."""
    ranked = sorted((uid for uid, stake in stakes.items() if stake > 0), key=lambda uid: (-stakes[uid], uid))
    return frozenset(ranked[:max_validators])


def blocks_to_wait(last: int | None, block: int, limit: int) -> int:
    """Blocks left until the rate limit allows what was last done in block `last`."""
    return 0 if last is None else max(0, last + limit - block)


def uid_to_prune(
    earned: Mapping[int, float], registered: Mapping[int, int], block: int, immunity: int, owner_uid: int
) -> int | None:
    """The uid whose place a newcomer to a full subnet takes.

    The one that earned least after its immunity; of equals, the one registered first. The owner
    never goes. None while all others are immune.
    """
    candidates = [uid for uid in earned if uid != owner_uid and block - registered[uid] >= immunity]
    return min(candidates, key=lambda uid: (earned[uid], registered[uid], uid), default=None)
