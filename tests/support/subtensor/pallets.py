"""Which call is whose, and what is checked before a call is let in or dispatched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.support.subtensor import commitments, registration, serving, weights
from tests.support.subtensor.blocks import Call, DispatchFailure, PoolRefusal
from tests.support.subtensor.execution import Execution

Rule = Callable[[Execution, str, Mapping[str, Any]], None]


def submit_encrypted(x: Execution, signer: str, params: Mapping[str, Any]) -> None:
    """The carrier of a shielded extrinsic; the author of the block decrypts it and includes the inner one."""
    if x.state.get("MevShield", "NextKey") is None:
        raise DispatchFailure("Unreachable", "MevShield")


CALLS: Final[dict[tuple[str, str], Rule]] = {
    ("SubtensorModule", "burned_register"): registration.burned_register,
    ("SubtensorModule", "register_limit"): registration.register_limit,
    ("SubtensorModule", "serve_axon"): serving.serve_axon,
    ("SubtensorModule", "set_weights"): weights.set_weights,
    ("SubtensorModule", "set_mechanism_weights"): weights.set_weights,
    ("SubtensorModule", "commit_timelocked_weights"): weights.commit_timelocked_weights,
    ("SubtensorModule", "commit_timelocked_mechanism_weights"): weights.commit_timelocked_weights,
    ("Commitments", "set_commitment"): commitments.set_commitment,
    ("MevShield", "submit_encrypted"): submit_encrypted,
}

GUARDS: Final[dict[tuple[str, str], Rule]] = {
    ("SubtensorModule", "serve_axon"): serving.check_axon,
    ("SubtensorModule", "set_weights"): weights.check_set,
    ("SubtensorModule", "set_mechanism_weights"): weights.check_set,
    ("SubtensorModule", "commit_timelocked_weights"): weights.check_commit,
    ("SubtensorModule", "commit_timelocked_mechanism_weights"): weights.check_commit,
}
"""Checked by the transaction extension: a call that fails one does not even get into the pool."""

CUSTOM_ERRORS: Final = {
    "NotEnoughStakeToSetWeights": 1,
    "SettingWeightsTooFast": 6,
    "HotKeyNotRegisteredInNetwork": 10,
    "InvalidIpAddress": 11,
    "ServingRateLimitExceeded": 12,
    "InvalidPort": 13,
    "InvalidRevealRound": 15,
}
"""`CustomTransactionError` of the runtime: the pool says a number where a block would say a name."""
BAD_REQUEST: Final = 255


def guard(x: Execution, signer: str, call: Call) -> None:
    """Lets a call into the pool and into a block, or not.

    Raises:
        PoolRefusal: as a node words it.
    """
    rule = GUARDS.get((call.module, call.function))
    if rule is None:
        return
    try:
        rule(x, signer, call.params)
    except DispatchFailure as failure:
        number = CUSTOM_ERRORS.get(failure.error.name, BAD_REQUEST)
        raise PoolRefusal(1010, "Invalid Transaction", f"Custom error: {number}") from failure


def dispatch(x: Execution, signer: str, call: Call) -> None:
    """Carries out a call.

    Raises:
        DispatchFailure: the pallet refuses it.
        NotImplementedError: this model has no such call.
    """
    rule = CALLS.get((call.module, call.function))
    if rule is None:
        raise NotImplementedError(f"{call.module}.{call.function}")
    rule(x, signer, call.params)
