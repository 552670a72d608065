"""Bytes that a hotkey puts on the chain, with a budget of space for each epoch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.support.subtensor import neurons
from tests.support.subtensor.blocks import DispatchFailure
from tests.support.subtensor.execution import Execution

PALLET: Final = "Commitments"
MAX_FIELDS: Final = 3
MIN_SPACE: Final = 100
"""A commitment counts as this many bytes of the budget at least."""


def set_commitment(x: Execution, hotkey: str, params: Mapping[str, Any]) -> None:
    """Takes the place of the hotkey's earlier commitment. Only plain `Raw` fields are modelled.

    Raises:
        DispatchFailure: not registered, too many fields, or the epoch's space is used up.
    """
    netuid, fields = int(params["netuid"]), list(params["info"]["fields"])
    if neurons.uid_of(x.state, netuid, hotkey) is None:
        raise DispatchFailure("AccountNotAllowedCommit", PALLET)
    if len(fields) > MAX_FIELDS:
        raise DispatchFailure("TooManyFieldsInCommitmentInfo", PALLET)
    stored = [_raw(field) for field in fields]
    space = max(MIN_SPACE, sum(len(data) for data in stored))
    _use_space(x, netuid, hotkey, space)
    x.state.put(
        PALLET,
        "CommitmentOf",
        (netuid, hotkey),
        {"deposit": 0, "block": x.block, "info": {"fields": [_field(data) for data in stored]}},
    )
    x.state.put(PALLET, "LastCommitment", (netuid, hotkey), x.block)
    x.emit(PALLET, "Commitment", {"netuid": netuid, "who": hotkey})


def _use_space(x: Execution, netuid: int, hotkey: str, space: int) -> None:
    epoch = x.get("SubnetEpochIndex", netuid)
    usage = x.state.get(PALLET, "UsedSpaceOf", netuid, hotkey)
    used = usage["used_space"] if usage and usage["last_epoch"] == epoch else 0
    if used + space > x.state.get(PALLET, "MaxSpace"):
        raise DispatchFailure("SpaceLimitExceeded", PALLET)
    x.state.put(PALLET, "UsedSpaceOf", (netuid, hotkey), {"last_epoch": epoch, "used_space": used + space})


def _raw(field: Mapping[str, Any]) -> bytes:
    ((variant, data),) = field.items()
    if not variant.startswith("Raw"):
        raise NotImplementedError(f"commitment field {variant}")
    raw = bytes.fromhex(data.removeprefix("0x")) if isinstance(data, str) else bytes(data)
    if len(raw) != int(variant.removeprefix("Raw")):
        raise ValueError(f"{variant} holds {len(raw)} bytes")
    return raw


def _field(data: bytes) -> dict[str, str]:
    return {f"Raw{len(data)}": "0x" + data.hex()}
