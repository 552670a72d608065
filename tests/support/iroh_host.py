"""An iroh link in a process and a network of its own, which does what it is told in lines of JSON.

    python -m tests.support.iroh_host SEED OWN_HOST

It first says its contact. Then `{"prepare": contact}` is silent, `{"push": contact}` says `{"error": ...}`
(null where the frame was acknowledged), and `{"status": true}` says contact, NAT, and paths by peers' keys.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from iota.protocol.contacts import Contact
from iota.wire.iroh_link import IrohLink
from iota.wire.iroh_options import IrohOptions
from iota.wire.transport import TransportError
from tests.support.doors import MemoryDoor, acknowledgement
from tests.support.frames import pushed
from tests.support.iroh_links import contact_of

PORT = 4433


async def _push(link: IrohLink, to: Contact, seed: int) -> str | None:
    frame = pushed(seed, bytes(300_000))
    try:
        answer = await link.push(frame, to)
    except TransportError as error:
        return str(error)
    return None if answer == acknowledgement(frame.data) else "another answer"


async def _obey(link: IrohLink, order: dict[str, Any], seed: int) -> dict[str, Any] | None:
    match order:
        case {"prepare": contact}:
            link.prepare(Contact.model_validate(contact))
            return None
        case {"push": contact}:
            return {"error": await _push(link, Contact.model_validate(contact), seed)}
    status = link.status
    assert status.endpoint is not None
    return {
        "contact": contact_of(link.contact()).model_dump(mode="json"),
        "nat": status.nat,
        "paths": {peer.key: peer.path for peer in status.endpoint.peers},
    }


async def _serve(seed: int, own_host: str) -> None:
    options = IrohOptions(bind=(f"0.0.0.0:{PORT}",))
    link = await IrohLink.open(bytes([seed]) * 32, MemoryDoor(), lambda key: True, options)
    link.add_own_host(own_host)
    print(contact_of(link.contact()).model_dump_json(), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        if (said := await _obey(link, json.loads(line), seed)) is not None:
            print(json.dumps(said), flush=True)
    await link.close()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2]))
