"""The rules for weights that both backends apply. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from iota.chain.chain import TxCode, TxResult
from iota.chain.errors import BadInput

U16_MAX: Final = 65535
"""The greatest weight, uid and netuid."""


def normalise(weights: Mapping[int, float]) -> dict[int, int]:
    """Weights as u16, scaled so that the greatest is 65535, without zeros; as the SDK does it.

    Raises:
        BadInput: a weight is negative or not finite, a uid out of range, or no weight above 0.
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


def check_weights(
    weights: Mapping[int, int], uids: Sequence[int], permitted: bool, version_key: int, required: int
) -> TxResult | None:
    """The refusal of weights that the chain would not accept, or None. Applied when set and when revealed.

    Args:
        weights: u16 by uid.
        uids: the uids of the subnet.
        permitted: whether the validator has a permit.
        required: the subnet's least version key.
    """
    if not permitted:
        return TxResult.refusal(
            TxCode.NOT_AUTHORIZED, "NeuronNoValidatorPermit", "this hotkey's stake earns no validator permit"
        )
    if version_key < required:
        return TxResult.refusal(
            TxCode.INVALID_ARGUMENT,
            "IncorrectWeightVersionKey",
            f"the version key is {version_key}, the subnet wants {required} or more: update your validator",
        )
    unknown = sorted(set(weights) - set(uids))
    if unknown:
        return TxResult.refusal(
            TxCode.INVALID_ARGUMENT, "UidVecContainInvalidOne", f"no neuron has uid {unknown[0]}"
        )
    return None
