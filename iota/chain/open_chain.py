"""Opens the chain backend for a network."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from iota.chain.chain import Chain
from iota.identity.keys import Hotkey

if TYPE_CHECKING:
    # Only a registration has a coldkey; a node must never load the code that reads one.
    from iota.identity.coldkey import Coldkey


def open_chain(
    network: str,
    hotkey: Hotkey | None = None,
    *,
    coldkey: Coldkey | None = None,
    timeout_s: float | None = None,
) -> Chain:
    """A connection to `network`, which opens with the first call; without `hotkey` it only reads.

    Args:
        network: finney, test, local or archive, the ws:// or wss:// URL of a node, or the http:// URL of an
            embedded ledger, as `iota ledger serve` prints it.
        hotkey: signs the writes.
        coldkey: signs and pays a registration; no other call needs it.
        timeout_s: seconds that one read may take; by default 10 with a ledger, and 30 with a Bittensor node,
            connecting included. A write may take as long with a ledger, and 120 s with Bittensor.

    Raises:
        BadInput: there is no such network.
    """
    if urlsplit(network).scheme in ("http", "https"):
        from iota.chain.ledger.client import LedgerChain

        return LedgerChain(network, hotkey, timeout_s=10.0 if timeout_s is None else timeout_s)
    # The SDK takes half a second to import, and the ledger needs none of it.
    from iota.chain.bittensor.client import READ_S, BittensorChain

    return BittensorChain(
        network, hotkey, coldkey=coldkey, timeout_s=READ_S if timeout_s is None else timeout_s
    )
