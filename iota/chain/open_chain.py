"""From the network's name that an operator gives to a chain connection."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from iota.chain.chain import Chain
from iota.chain.errors import BadInput
from iota.protocol.keys import Hotkey

if TYPE_CHECKING:
    # Only a registration has a coldkey: a node that starts never loads the code that reads one.
    from iota.protocol.coldkey import Coldkey


def open_chain(
    network: str, hotkey: Hotkey | None = None, *, coldkey: Coldkey | None = None, timeout_s: float = 10.0
) -> Chain:
    """A connection to `network`; nothing is sent yet, and without `hotkey` it only reads.

    Args:
        network: finney, test or local, the ws:// or wss:// URL of a node, or the http:// URL of an embedded
            ledger, as `iota ledger serve` prints it.
        hotkey: who signs the writes.
        coldkey: who signs and pays a registration; nothing else needs it.
        timeout_s: the longest that one call may take, in seconds.

    Raises:
        BadInput: a network that this version cannot reach.
    """
    if urlsplit(network).scheme in ("http", "https"):
        from iota.chain.ledger.client import LedgerChain

        return LedgerChain(network, hotkey, timeout_s=timeout_s)
    raise BadInput(
        f"cannot open the network {network!r}: the Bittensor backend (finney, test, local, ws://) is not in "
        "this version yet; give the URL of an embedded ledger (http://...), started with `iota ledger serve`"
    )
