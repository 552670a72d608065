"""How an extrinsic gets into a block: valid or not, paid for, then carried out or undone."""

from __future__ import annotations

from typing import Any

from tests.support.subtensor import accounts, pallets
from tests.support.subtensor.blocks import DispatchFailure, Extrinsic, PoolRefusal
from tests.support.subtensor.execution import Execution


def check_validity(x: Execution, extrinsic: Extrinsic, hotkey_fees: bool) -> None:
    """What keeps an extrinsic out of the pool and out of a block, beside its nonce and its era.

    Raises:
        PoolRefusal: nobody can pay its fee, or it breaks a rule that is checked before dispatch.
    """
    payer = accounts.fee_payer(x.state, extrinsic.signer, extrinsic.call)
    if accounts.free_balance(x.state, payer) < accounts.fee(extrinsic.call, hotkey_fees):
        raise PoolRefusal(
            1010, "Invalid Transaction", "Inability to pay some fees (e.g. account balance too low)"
        )
    pallets.guard(x, extrinsic.signer, extrinsic.call)


def include(x: Execution, extrinsic: Extrinsic, index: int, hotkey_fees: bool) -> None:
    """Puts a valid extrinsic into a block. A call that fails costs its nonce and its fee all the same."""
    x.extrinsic_index = index
    accounts.spend_nonce(x.state, extrinsic.signer)
    fee = accounts.fee(extrinsic.call, hotkey_fees)
    pays = "Yes" if fee else "No"
    if fee:
        _charge(x, extrinsic, fee)
    attempt = Execution(x.state.fork(), x.block)
    attempt.extrinsic_index = index
    try:
        pallets.dispatch(attempt, extrinsic.signer, extrinsic.call)
    except DispatchFailure as failure:
        ending = {"dispatch_error": failure.error, "dispatch_info": _dispatch_info(pays)}
        x.emit("System", "ExtrinsicFailed", ending)
    else:
        x.state.adopt(attempt.state)
        x.events += attempt.events
        succeed(x, index, pays)
    x.extrinsic_index = None


def succeed(x: Execution, index: int, pays: str) -> None:
    """The last event of an extrinsic that went well."""
    x.extrinsic_index = index
    x.emit("System", "ExtrinsicSuccess", {"dispatch_info": _dispatch_info(pays)})
    x.extrinsic_index = None


def _charge(x: Execution, extrinsic: Extrinsic, fee: int) -> None:
    payer = accounts.fee_payer(x.state, extrinsic.signer, extrinsic.call)
    accounts.set_free_balance(x.state, payer, accounts.free_balance(x.state, payer) - fee)
    x.emit("TransactionPayment", "TransactionFeePaid", {"who": payer, "actual_fee": fee, "tip": 0})


def _dispatch_info(pays: str) -> dict[str, Any]:
    return {"weight": {"ref_time": 1_000_000, "proof_size": 0}, "class": "Normal", "pays_fee": pays}
