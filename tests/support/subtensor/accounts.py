"""Accounts: balances, nonces, and who pays the fee of a call."""

from __future__ import annotations

from typing import Any, Final

from tests.support.subtensor.blocks import Call
from tests.support.subtensor.state import State

EXISTENTIAL_DEPOSIT: Final = 500
"""rao; an account with less is gone."""
FEE: Final = 166_247
"""rao for one extrinsic that pays; the chain's own figure depends on length and weight."""
NO_FLAGS: Final = 1 << 127

HOTKEY_CALLS: Final = frozenset(
    {
        ("SubtensorModule", "set_weights"),
        ("SubtensorModule", "set_mechanism_weights"),
        ("SubtensorModule", "commit_timelocked_weights"),
        ("SubtensorModule", "commit_timelocked_mechanism_weights"),
        ("SubtensorModule", "serve_axon"),
        ("Commitments", "set_commitment"),
    }
)
"""Calls that a hotkey signs: free on some runtimes, paid by the hotkey's coldkey on later ones."""


def account(state: State, address: str) -> dict[str, Any]:
    """`System.Account`, of zeros for one that the chain has never seen."""
    stored: dict[str, Any] | None = state.get("System", "Account", address)
    if stored is not None:
        return stored
    data = {"free": 0, "reserved": 0, "frozen": 0, "flags": NO_FLAGS}
    return {"nonce": 0, "consumers": 0, "providers": 0, "sufficients": 0, "data": data}


def free_balance(state: State, address: str) -> int:
    """rao."""
    return int(account(state, address)["data"]["free"])


def set_free_balance(state: State, address: str, rao: int) -> None:
    was = account(state, address)
    state.put(
        "System",
        "Account",
        (address,),
        {**was, "providers": int(rao >= EXISTENTIAL_DEPOSIT), "data": {**was["data"], "free": rao}},
    )


def next_nonce(state: State, address: str) -> int:
    """The nonce that the next extrinsic of an account must have."""
    return int(account(state, address)["nonce"])


def spend_nonce(state: State, address: str) -> None:
    was = account(state, address)
    state.put("System", "Account", (address,), {**was, "nonce": was["nonce"] + 1})


def fee(call: Call, hotkey_fees: bool) -> int:
    """rao that a call costs to include."""
    return FEE if hotkey_fees or (call.module, call.function) not in HOTKEY_CALLS else 0


def fee_payer(state: State, signer: str, call: Call) -> str:
    """The coldkey for what its hotkey signs, otherwise the signer."""
    if (call.module, call.function) not in HOTKEY_CALLS:
        return signer
    return str(state.get("SubtensorModule", "Owner", signer) or signer)
