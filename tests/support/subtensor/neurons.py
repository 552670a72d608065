"""The uids of a subnet: who gets one, who loses one, and the vectors that run along with them."""

from __future__ import annotations

from typing import Any, Final

from tests.support.subtensor.execution import PALLET
from tests.support.subtensor.state import State

FRESH: Final[dict[str, Any]] = {
    "Active": True,
    "Emission": 0,
    "Consensus": 0,
    "Incentive": 0,
    "Dividends": 0,
    "ValidatorTrust": 0,
    "ValidatorPermit": False,
}
"""What a new neuron has in each vector of its subnet; `LastUpdate` is the block of its registration."""


def count(state: State, netuid: int) -> int:
    return int(state.get(PALLET, "SubnetworkN", netuid) or 0)


def uid_of(state: State, netuid: int, hotkey: str) -> int | None:
    uid = state.get(PALLET, "Uids", netuid, hotkey)
    return None if uid is None else int(uid)


def hotkey_of(state: State, netuid: int, uid: int) -> str:
    return str(state.get(PALLET, "Keys", netuid, uid))


def stake_of(state: State, netuid: int, hotkey: str) -> int:
    """rao."""
    return int(state.get(PALLET, "TotalHotkeyAlpha", hotkey, netuid) or 0)


def set_element(state: State, item: str, netuid: int, uid: int, value: Any) -> None:
    """Changes one place of a subnet's vector, or appends to it."""
    vector = list(state.get(PALLET, item, netuid) or [])
    vector[uid : uid + 1] = [value]
    state.put(PALLET, item, (netuid,), vector)


def own(state: State, hotkey: str, coldkey: str) -> None:
    """Ties a hotkey to a coldkey, once and for all."""
    if state.get(PALLET, "Owner", hotkey) is None:
        state.put(PALLET, "Owner", (hotkey,), coldkey)
        owned = list(state.get(PALLET, "OwnedHotkeys", coldkey) or [])
        state.put(PALLET, "OwnedHotkeys", (coldkey,), [*owned, hotkey])


def append(state: State, netuid: int, hotkey: str, block: int) -> int:
    """Gives a hotkey the next uid."""
    uid = count(state, netuid)
    state.put(PALLET, "SubnetworkN", (netuid,), uid + 1)
    _settle(state, netuid, uid, hotkey, block)
    return uid


def replace(state: State, netuid: int, uid: int, hotkey: str, block: int) -> None:
    """Gives a hotkey the uid of another, which is no member any more."""
    old = hotkey_of(state, netuid, uid)
    state.remove(PALLET, "Uids", netuid, old)
    state.remove(PALLET, "IsNetworkMember", old, netuid)
    state.remove(PALLET, "Axons", netuid, old)
    state.remove(PALLET, "Weights", netuid, uid)
    for (_, validator), row in state.entries(PALLET, "Weights", netuid):
        state.put(PALLET, "Weights", (netuid, validator), [(u, 0 if u == uid else w) for u, w in row])
    for item in ("CommitmentOf", "LastCommitment", "UsedSpaceOf"):
        state.remove("Commitments", item, netuid, old)
    _settle(state, netuid, uid, hotkey, block)


def uid_to_prune(state: State, netuid: int, block: int) -> int | None:
    """Whose place a newcomer to a full subnet takes; None where nobody may go.

    The one with the least emission among those out of immunity, of equals the one registered first; among
    the immune where too few others are left. The owner never goes.
    """
    owner = state.get(PALLET, "SubnetOwnerHotkey", netuid)
    immunity = state.get(PALLET, "ImmunityPeriod", netuid)
    emission = state.get(PALLET, "Emission", netuid)
    free: list[tuple[int, int, int]] = []
    immune: list[tuple[int, int, int]] = []
    for uid in range(count(state, netuid)):
        if hotkey_of(state, netuid, uid) == owner:
            continue
        registered = state.get(PALLET, "BlockAtRegistration", netuid, uid)
        (immune if block - registered < immunity else free).append((emission[uid], registered, uid))
    if len(free) > state.get(PALLET, "MinNonImmuneUids", netuid):
        return min(free)[2]
    return min(immune)[2] if immune else None


def _settle(state: State, netuid: int, uid: int, hotkey: str, block: int) -> None:
    for item, value in FRESH.items():
        set_element(state, item, netuid, uid, value)
    set_element(state, "LastUpdate", netuid, uid, block)
    state.put(PALLET, "Keys", (netuid, uid), hotkey)
    state.put(PALLET, "Uids", (netuid, hotkey), uid)
    state.put(PALLET, "BlockAtRegistration", (netuid, uid), block)
    state.put(PALLET, "IsNetworkMember", (hotkey, netuid), True)
