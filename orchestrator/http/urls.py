"""Presigned URLs: those delivered with events, and those that a member requests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from iota.protocol.events import Delivered, Event
from iota.protocol.messages import Method
from iota.spec import RunSpec
from iota.store import ObjectStore
from orchestrator.coordinator import Member
from orchestrator.intake import Access, accesses

_MAX_INLINE: Final = 16
"""Most URLs that are signed on the event loop; more would block it, and are signed in a thread."""


async def deliver(
    spec: RunSpec, store: ObjectStore, member: Member, events: Sequence[tuple[int, Event]], expires_s: float
) -> tuple[Delivered, ...]:
    """The numbered events, each with the presigned URLs that `member` needs for it."""
    wanted = [accesses(spec, member, event) for _, event in events]

    def sign() -> list[dict[str, str]]:
        return [{access.key: presign(store, access, expires_s) for access in each} for each in wanted]

    urls = sign() if sum(map(len, wanted)) <= _MAX_INLINE else await asyncio.to_thread(sign)
    return tuple(
        Delivered(seq=seq, event=event, urls=found) for (seq, event), found in zip(events, urls, strict=True)
    )


def presign(store: ObjectStore, access: Access, expires_s: float) -> str:
    """The presigned URL of one access, valid for `expires_s` seconds."""
    if access.method is Method.PUT:
        return store.presign_put(access.key, access.size, expires_s)
    return store.presign_get(access.key, expires_s)
