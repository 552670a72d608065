"""Iroh links on loopback without relays, and the contacts by which they find each other."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from iota.http import UploadPace
from iota.protocol.contacts import Contact, IrohContact
from iota.wire.iroh_link import IrohLink
from iota.wire.iroh_options import IrohOptions
from tests.support.doors import MemoryDoor

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
LOOPBACK = "127.0.0.1:0"


def contact_of(iroh: IrohContact | None) -> Contact:
    """A contact with this endpoint alone."""
    return Contact(run="ab" * 32, hotkey=ALICE, version=1, expires=time.time() + 600, iroh=iroh)


@dataclass
class IrohEnd:
    """One member's link, which can be closed and opened again with the same key."""

    members: set[str]
    options: dict[str, Any]
    pace: UploadPace | None = None
    door: MemoryDoor = field(default_factory=MemoryDoor)
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    link: IrohLink = field(init=False)
    contact: Contact = field(init=False)

    async def open(self) -> None:
        options = IrohOptions(**{"bind": (LOOPBACK,), **self.options})
        self.link = await IrohLink.open(
            self.secret, self.door, self.members.__contains__, options, pace=self.pace
        )
        reached = self.link.contact()
        assert reached is not None
        self.contact = contact_of(reached)
        self.members.add(reached.key)

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Within the block the end is away; then it is back where it was."""
        await self.link.close()
        yield
        assert self.contact.iroh is not None
        self.options["bind"] = self.contact.iroh.addresses
        await self.open()

    async def until(self, condition: Callable[[], bool], within_s: float = 20.0) -> None:
        """Wait for a condition that no event tells of."""
        async with asyncio.timeout(within_s):
            while not condition():  # noqa: ASYNC110 - of other processes
                await asyncio.sleep(0.02)


@asynccontextmanager
async def iroh_ends(
    count: int = 2, *, pace: UploadPace | None = None, **options: Any
) -> AsyncIterator[list[IrohEnd]]:
    """Ends that know each other, each of which sends at `pace`. `options` are those of `IrohOptions`."""
    members: set[str] = set()
    ends = [IrohEnd(members, dict(options), pace) for _ in range(count)]
    async with AsyncExitStack() as stack:
        for end in ends:
            await end.open()
            stack.push_async_callback(lambda end=end: end.link.close())
        yield ends
