"""Checks that every backend makes before it sends: of the arguments, and of the key that signs."""

from __future__ import annotations

import ipaddress

from iota.chain.chain import MAX_COMMITMENT_BYTES, TxCode, TxResult
from iota.chain.errors import BadInput, KeyUnavailable
from iota.identity.keys import Hotkey
from iota.identity.signatures import is_address


def check_netuid(netuid: int) -> int:
    """Return `netuid`; raises BadInput outside 0 to 65535."""
    if not 0 <= netuid <= 65535:
        raise BadInput(f"netuid is 0 to 65535, not {netuid}")
    return netuid


def check_address(ss58: str) -> None:
    """Raises BadInput for text that is not an ss58 address."""
    if not is_address(ss58):
        raise BadInput(f"{ss58!r} is not an ss58 address")


def check_commitment(data: bytes) -> None:
    """Raises BadInput for data that is empty or longer than a commitment."""
    if not 0 < len(data) <= MAX_COMMITMENT_BYTES:
        raise BadInput(f"a commitment is 1 to {MAX_COMMITMENT_BYTES} bytes, not {len(data)}")


def endpoint_refusal(ip: str, port: int) -> TxResult | None:
    """The refusal of an address that the chain would not publish, or None."""
    try:
        ipaddress.ip_address(ip)
    except ValueError:
        return TxResult.refusal(TxCode.INVALID_ARGUMENT, "InvalidIpAddress", "not an IPv4 or IPv6 address")
    if not 0 < port <= 65535:
        return TxResult.refusal(TxCode.INVALID_ARGUMENT, "InvalidPort", "a port is 1 to 65535")
    return None


def writer(hotkey: Hotkey | None) -> Hotkey:
    """The hotkey that signs writes; raises KeyUnavailable where the connection was opened without one."""
    if hotkey is None:
        raise KeyUnavailable("this connection has no hotkey and can only read: open it with one to write")
    return hotkey
