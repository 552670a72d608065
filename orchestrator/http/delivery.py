"""Events as they are delivered: with presigned URLs, and what binds the orchestrator with its signature."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from iota.protocol.events import Delivered, Event
from iota.protocol.messages import Method
from iota.spec import RunSpec
from iota.store import ObjectStore
from orchestrator.coordinator import Member
from orchestrator.http.statements import Statements
from orchestrator.intake import Access, accesses

_MAX_INLINE: Final = 16
"""Most URLs that are signed on the event loop; more would block it, and are signed in a thread."""


class Delivery:
    """Makes events ready for a member of one run."""

    def __init__(self, spec: RunSpec, store: ObjectStore, statements: Statements, expires_s: float) -> None:
        """URLs are valid for `expires_s` seconds."""
        self._spec, self._store, self._statements, self._expires_s = spec, store, statements, expires_s

    async def of(self, member: Member, events: Sequence[tuple[int, Event]]) -> tuple[Delivered, ...]:
        """The numbered events, each with the presigned URLs that `member` needs for it."""
        wanted = [
            [access for access in accesses(self._spec, member, event) if not self._in_parts(access)]
            for _, event in events
        ]

        def sign() -> list[dict[str, str]]:
            return [{a.key: presign(self._store, a, self._expires_s) for a in each} for each in wanted]

        urls = sign() if sum(map(len, wanted)) <= _MAX_INLINE else await asyncio.to_thread(sign)
        return tuple(
            Delivered(seq=seq, event=event, urls=found, signature=self._statements.of(member.hotkey, event))
            for (seq, event), found in zip(events, urls, strict=True)
        )

    def _in_parts(self, access: Access) -> bool:
        """Whether an object is stored in parts: the member asks for their URLs when it has the object."""
        return access.method is Method.PUT and self._store.in_parts(access.size)


def presign(store: ObjectStore, access: Access, expires_s: float) -> str:
    """The presigned URL of one access, valid for `expires_s` seconds."""
    if access.method is Method.PUT:
        return store.presign_put(access.key, access.size, expires_s)
    return store.presign_get(access.key, expires_s)
