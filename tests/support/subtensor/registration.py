"""Registration against a price that every newcomer raises and every block lowers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.support.subtensor import neurons
from tests.support.subtensor.accounts import EXISTENTIAL_DEPOSIT, free_balance, set_free_balance
from tests.support.subtensor.blocks import DispatchFailure
from tests.support.subtensor.execution import Execution


def burned_register(x: Execution, coldkey: str, params: Mapping[str, Any]) -> None:
    """Burns the price from the coldkey and gives the hotkey a uid, if need be another's.

    Raises:
        DispatchFailure: in the order of the pallet's checks.
    """
    netuid, hotkey = int(params["netuid"]), str(params["hotkey"])
    if netuid == 0:
        raise DispatchFailure("RegistrationNotPermittedOnRootSubnet")
    if not x.get("NetworksAdded", netuid):
        raise DispatchFailure("SubnetNotExists")
    if not x.get("NetworkRegistrationAllowed", netuid):
        raise DispatchFailure("SubNetRegistrationDisabled")
    if neurons.uid_of(x.state, netuid, hotkey) is not None:
        raise DispatchFailure("HotKeyAlreadyRegisteredInSubNet")
    price = int(x.get("Burn", netuid))
    balance = free_balance(x.state, coldkey)
    if balance - EXISTENTIAL_DEPOSIT < price:
        raise DispatchFailure("NotEnoughBalanceToStake")
    neurons.own(x.state, hotkey, coldkey)
    if x.get("Owner", hotkey) != coldkey:
        raise DispatchFailure("NonAssociatedColdKey")
    set_free_balance(x.state, coldkey, balance - price)
    uid = _place(x, netuid, hotkey)
    _raise_price(x, netuid)
    x.put("RegistrationsThisBlock", (netuid,), x.get("RegistrationsThisBlock", netuid) + 1)
    x.emit("SubtensorModule", "NeuronRegistered", (netuid, uid, hotkey))


def register_limit(x: Execution, coldkey: str, params: Mapping[str, Any]) -> None:
    """`burned_register`, unless the price is above the caller's limit."""
    netuid = int(params["netuid"])
    if not x.get("NetworksAdded", netuid):
        raise DispatchFailure("SubnetNotExists")
    if x.get("Burn", netuid) > int(params["limit_price"]):
        raise DispatchFailure("RegistrationPriceLimitExceeded")
    burned_register(x, coldkey, params)


def lower_price(x: Execution, netuid: int) -> None:
    """The decay of one block: half in `BurnHalfLife` blocks."""
    half_life = int(x.get("BurnHalfLife", netuid))
    if half_life > 0:
        _set_price(x, netuid, int(x.get("Burn", netuid) * 0.5 ** (1 / half_life)))
    x.put("RegistrationsThisBlock", (netuid,), 0)


def _place(x: Execution, netuid: int, hotkey: str) -> int:
    if neurons.count(x.state, netuid) < x.get("MaxAllowedUids", netuid):
        return neurons.append(x.state, netuid, hotkey, x.block)
    uid = neurons.uid_to_prune(x.state, netuid, x.block)
    if uid is None:
        raise DispatchFailure("NoNeuronIdAvailable")
    neurons.replace(x.state, netuid, uid, hotkey, x.block)
    return uid


def _raise_price(x: Execution, netuid: int) -> None:
    multiplier = max(1.0, x.get("BurnIncreaseMult", netuid)["bits"] / 2**64)
    _set_price(x, netuid, int(x.get("Burn", netuid) * multiplier))


def _set_price(x: Execution, netuid: int, rao: int) -> None:
    bounded = min(max(rao, x.get("MinBurn", netuid)), x.get("MaxBurn", netuid))
    x.put("Burn", (netuid,), bounded)
