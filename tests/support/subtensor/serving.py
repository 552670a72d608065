"""Where a neuron says that it can be reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.support.subtensor import neurons
from tests.support.subtensor.blocks import DispatchFailure
from tests.support.subtensor.execution import Execution

LOCALHOST_4: Final = 0x7F000001
FIELDS: Final = ("version", "ip", "port", "ip_type", "protocol", "placeholder1", "placeholder2")


def check_axon(x: Execution, hotkey: str, params: Mapping[str, Any]) -> None:
    """Refuses an address before it is dispatched.

    Raises:
        DispatchFailure: in the order of the pallet's checks.
    """
    netuid = int(params["netuid"])
    if neurons.uid_of(x.state, netuid, hotkey) is None:
        raise DispatchFailure("HotKeyNotRegisteredInNetwork")
    ip, ip_type = int(params["ip"]), int(params["ip_type"])
    if ip_type not in (4, 6):
        raise DispatchFailure("InvalidIpType")
    if (ip_type == 4 and (ip >= 2**32 - 1 or ip == LOCALHOST_4)) or (ip_type == 6 and ip in (1, 2**128 - 1)):
        raise DispatchFailure("InvalidIpAddress")
    last = (x.get("Axons", netuid, hotkey) or {}).get("block", 0)
    limit = x.get("ServingRateLimit", netuid)
    if limit and last and x.block - last < limit:
        raise DispatchFailure("ServingRateLimitExceeded")
    if int(params["port"]) == 0:
        raise DispatchFailure("InvalidPort")


def serve_axon(x: Execution, hotkey: str, params: Mapping[str, Any]) -> None:
    """Stores the address."""
    netuid = int(params["netuid"])
    x.put("Axons", (netuid, hotkey), {"block": x.block, **{name: int(params[name]) for name in FIELDS}})
    x.emit("SubtensorModule", "AxonServed", (netuid, hotkey))
