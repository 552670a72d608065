"""Peers tell each other at which address they see each other, since a NAT hides that from an endpoint.

It goes in datagrams of the connection: `seen IP:PORT`. One that is lost is told again. What a peer says is
believed only where others say so too (`iota.wire.iroh_status`).
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

import iroh

from iota.wire.iroh_live import Live, path_of

_TELL_S: Final = 30.0
_HEAR_S: Final = 1.0
"""No more than one datagram a second is looked at; the library drops what it has no room for."""
_FORM: Final = re.compile(rb"seen ([0-9a-fA-F.:\[\]]{4,60})")


async def tell_seen(live: Live) -> None:
    """Tell the peer where it is seen, until the connection ends."""
    while live.open:
        path = path_of(live.connection)
        if path["path"] == "direct":
            try:
                live.connection.send_datagram(f"seen {path['address']}".encode())
            except iroh.IrohError:
                return  # the connection has ended, or the peer takes no datagrams
        await asyncio.sleep(_TELL_S if path["path"] == "direct" else 1.0)


async def hear_seen(live: Live) -> None:
    """Note where the peer sees this endpoint, until the connection ends."""
    while True:
        try:
            said = _FORM.fullmatch(await live.connection.read_datagram())
        except iroh.IrohError:
            return
        if said:
            live.sees = said[1].decode()
        await asyncio.sleep(_HEAR_S)
