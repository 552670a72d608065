"""Presigned URLs: those that go out with events, and those that a member asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from iota.protocol.events import Delivered, Event
from iota.protocol.messages import Method
from iota.spec import RunSpec
from iota.store import ObjectStore
from orchestrator.coordinator import Member
from orchestrator.intake import Access, accesses

_MAX_INLINE: Final = 16
"""Signatures that are made on the event loop; more of them go to a thread."""


async def deliver(
    spec: RunSpec,
    store: ObjectStore,
    member: Member,
    events: Sequence[tuple[int, Event]],
    expires_s: float,
) -> tuple[Delivered, ...]:
    """The events as they go out, each with the URLs that its reader needs."""
    wanted = [accesses(spec, member, event) for _, event in events]
    if sum(map(len, wanted)) <= _MAX_INLINE:
        urls = [_presign(store, each, expires_s) for each in wanted]
    else:
        urls = await asyncio.to_thread(lambda: [_presign(store, each, expires_s) for each in wanted])
    return tuple(
        Delivered(seq=seq, event=event, urls=found) for (seq, event), found in zip(events, urls, strict=True)
    )


def presign(store: ObjectStore, access: Access, expires_s: float) -> str:
    """The URL of one access, which lasts for `expires_s` seconds."""
    if access.method is Method.PUT:
        return store.presign_put(access.key, access.size, expires_s)
    return store.presign_get(access.key, expires_s)


def _presign(store: ObjectStore, wanted: Iterable[Access], expires_s: float) -> dict[str, str]:
    return {access.key: presign(store, access, expires_s) for access in wanted}
