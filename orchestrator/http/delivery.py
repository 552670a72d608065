"""Events as they are delivered: with presigned URLs, and plans with the orchestrator's signature."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from cachetools import LRUCache

from iota.identity.keys import Hotkey
from iota.identity.signatures import signing_bytes
from iota.protocol.events import Delivered, Event, Plan
from iota.protocol.messages import Method
from iota.protocol.plans import PLAN_DOMAIN, signed_root
from iota.spec import RunSpec
from iota.store import ObjectStore
from orchestrator.coordinator import Member
from orchestrator.intake import Access, accesses

_MAX_INLINE: Final = 16
"""Most URLs that are signed on the event loop; more would block it, and are signed in a thread."""
_MAX_SIGNED: Final = 64
"""Signatures of plans that are kept: all members get the same one."""


class Delivery:
    """Makes events ready for a member of one run."""

    def __init__(self, spec: RunSpec, store: ObjectStore, hotkey: Hotkey, expires_s: float) -> None:
        """Signed by `hotkey`; URLs are valid for `expires_s` seconds."""
        self._spec, self._store, self._hotkey, self._expires_s = spec, store, hotkey, expires_s
        self._signed: LRUCache[str, str] = LRUCache(_MAX_SIGNED)

    async def of(self, member: Member, events: Sequence[tuple[int, Event]]) -> tuple[Delivered, ...]:
        """The numbered events, each with the presigned URLs that `member` needs for it."""
        wanted = [accesses(self._spec, member, event) for _, event in events]

        def sign() -> list[dict[str, str]]:
            return [{a.key: presign(self._store, a, self._expires_s) for a in each} for each in wanted]

        urls = sign() if sum(map(len, wanted)) <= _MAX_INLINE else await asyncio.to_thread(sign)
        return tuple(
            Delivered(seq=seq, event=event, urls=found, signature=self._signature(event))
            for (seq, event), found in zip(events, urls, strict=True)
        )

    def _signature(self, event: Event) -> str | None:
        """The orchestrator's signature on a plan's root; None for any other event."""
        if not isinstance(event, Plan):
            return None
        root = event.proof.root
        if root not in self._signed:
            payload = signed_root(self._spec.id, event.share.epoch, event.share.step, event.proof)
            self._signed[root] = self._hotkey.sign(signing_bytes(PLAN_DOMAIN, payload)).hex()
        return self._signed[root]


def presign(store: ObjectStore, access: Access, expires_s: float) -> str:
    """The presigned URL of one access, valid for `expires_s` seconds."""
    if access.method is Method.PUT:
        return store.presign_put(access.key, access.size, expires_s)
    return store.presign_get(access.key, expires_s)
