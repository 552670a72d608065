"""The ledger's decisions as pure functions, after the rules of a Bittensor subnet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from iota.chain.chain import TxCode, TxResult
from iota.chain.errors import BadInput
from iota.chain.ledger.parameters import U16_MAX


def normalise(weights: Mapping[int, float]) -> dict[int, int]:
    """Weights as u16 with the greatest at 65535, zeros left out; as the SDK does it.

    Raises:
        BadInput: a weight that is negative or not finite, a uid out of range, or nothing above zero.
    """
    if any(not math.isfinite(w) or w < 0 for w in weights.values()):
        raise BadInput("weights must be finite and not negative")
    if any(not 0 <= uid <= U16_MAX for uid in weights):
        raise BadInput(f"uids are 0 to {U16_MAX}")
    top = max(weights.values(), default=0.0)
    if top == 0:
        raise BadInput("all weights are zero: there is nothing to set")
    scaled = {uid: round(weight / top * U16_MAX) for uid, weight in sorted(weights.items())}
    return {uid: value for uid, value in scaled.items() if value > 0}


def permits(stakes: Mapping[int, float], max_validators: int) -> frozenset[int]:
    """Who may set weights: the uids with the greatest stakes above zero; the lower uid first in a tie."""
    ranked = sorted((uid for uid, stake in stakes.items() if stake > 0), key=lambda uid: (-stakes[uid], uid))
    return frozenset(ranked[:max_validators])


def blocks_to_wait(last: int | None, block: int, limit: int) -> int:
    """How many more blocks until the rate limit lets through what was last done in block `last`."""
    return 0 if last is None else max(0, last + limit - block)


def uid_to_prune(
    earned: Mapping[int, float], registered: Mapping[int, int], block: int, immunity: int, owner_uid: int
) -> int | None:
    """Whose place a newcomer to a full subnet takes.

    The one that earned least after its immunity; of equals, the one registered first. The owner
    never goes. None while all others are immune.
    """
    candidates = [uid for uid in earned if uid != owner_uid and block - registered[uid] >= immunity]
    return min(candidates, key=lambda uid: (earned[uid], registered[uid], uid), default=None)


def check_weights(
    weights: Mapping[int, int], uids: Sequence[int], permitted: bool, version_key: int, required: int
) -> TxResult | None:
    """Why these weights cannot be in force, if so: checked when set and again when revealed."""
    if not permitted:
        return refused(
            TxCode.NOT_AUTHORIZED, "NeuronNoValidatorPermit", "this hotkey's stake earns no validator permit"
        )
    if version_key < required:
        return refused(
            TxCode.INVALID_ARGUMENT,
            "IncorrectWeightVersionKey",
            f"the version key is {version_key}, the subnet wants {required} or more: update your validator",
        )
    unknown = sorted(set(weights) - set(uids))
    if unknown:
        return refused(TxCode.INVALID_ARGUMENT, "UidVecContainInvalidOne", f"no neuron has uid {unknown[0]}")
    return None


def refused(code: TxCode, chain_error: str, message: str) -> TxResult:
    """A write that is not taken."""
    return TxResult(ok=False, code=code, chain_error=chain_error, message=message, block=None)
