"""The Bridge from a program: typed reads, writes, leases, and watches that go on after any break."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import urlencode

from pydantic import JsonValue

from iota.client.orchestrator import OrchestratorClient
from iota.protocol.bridge import (
    KNOWN_S,
    Delete,
    GetReply,
    GetRequest,
    ListReply,
    ListRequest,
    Lock,
    Op,
    Renew,
    Set,
    Unlock,
    VariableView,
    WatchReply,
    WatchRequest,
    WriteReply,
    WriteRequest,
)

WAIT_S: Final = 5.0
"""Longest wait of one request of a watch; servers wait no longer."""
WRITE_FOR_S: Final = KNOWN_S * 2 / 3
"""Longest time that a write is retried: after that it might not be known any more, and be done twice."""


class BridgeClient:
    """Calls of the Bridge, signed by the client's hotkey, or unsigned for what anyone may read.

    A write is retried as other calls are (`OrchestratorClient`), for ten minutes at most, and happens once.
    Every call raises what that client raises; a write that is not taken raises `Problem`: CONFLICT has in
    `extra` the `name` and, as `current`, the variable.
    """

    def __init__(self, client: OrchestratorClient, *, signed: bool = True) -> None:
        self._client, self._signed = client, signed

    # ---- reads ---------------------------------------------------------------------------------

    async def get(self, name: str) -> VariableView | None:
        """A variable; None where there is none."""
        request = GetRequest(name=name)
        if self._signed:
            return (await self._client.post("/v1/bridge/get", request, GetReply)).variable
        return (await self._client.get(f"/v1/bridge/get?{urlencode({'name': name})}", GetReply)).variable

    async def list(self, prefix: str = "") -> list[VariableView]:
        """The variables under a prefix, by name; each as it was at some moment of the call."""
        found: list[VariableView] = []
        more = True
        while more:
            page = await self._page(prefix, found[-1].name if found else "")
            found += page.variables
            more = page.more and bool(page.variables)
        return found

    async def watch(self, prefix: str = "", revision: int | None = None) -> AsyncIterator[WatchReply]:
        """What changes under a prefix after a revision, without an end; the client must be signed.

        A snapshot (None, or a revision that is too long ago) comes whole. Who keeps `revision` of the last
        answer, and begins with it the next time, misses nothing.
        """
        while True:
            request = WatchRequest(prefix=prefix, revision=revision, wait_s=WAIT_S)
            found = await self._client.post("/v1/bridge/watch", request, WatchReply, wait_s=WAIT_S)
            while found.snapshot and found.more:
                found = found.with_page(await self._page(prefix, found.changes[-1].name))
            if found.snapshot or found.changes:
                yield found
            revision = found.revision

    # ---- writes --------------------------------------------------------------------------------

    async def write(self, *ops: Op) -> int:
        """Do all operations, or none; the revision of the write."""
        request = WriteRequest(request=secrets.token_hex(16), ops=ops)
        retry_for_s = min(self._client.retry_for_s, WRITE_FOR_S)
        reply = await self._client.post("/v1/bridge/write", request, WriteReply, retry_for_s=retry_for_s)
        return reply.revision

    async def set(self, name: str, value: JsonValue, **options: Any) -> int:
        """Set one variable; its version. `options` are fields of `Set`."""
        return await self.write(Set(name=name, value=value, **options))

    async def delete(self, name: str, **options: Any) -> int:
        """Delete one variable. `options` are fields of `Delete`."""
        return await self.write(Delete(name=name, **options))

    async def lock(self, name: str, lease_s: float) -> int:
        """Take the lease of a variable; its number."""
        return await self.write(Lock(name=name, lease_s=lease_s))

    async def renew(self, name: str, lease: int, lease_s: float) -> None:
        """Let a lease run for `lease_s` from now."""
        await self.write(Renew(name=name, lease=lease, lease_s=lease_s))

    async def unlock(self, name: str, lease: int) -> None:
        """Give a lease back."""
        await self.write(Unlock(name=name, lease=lease))

    # ---- parts ---------------------------------------------------------------------------------

    async def _page(self, prefix: str, after: str) -> ListReply:
        if self._signed:
            request = ListRequest(prefix=prefix, after=after)
            return await self._client.post("/v1/bridge/list", request, ListReply)
        query = urlencode({"prefix": prefix, "after": after})
        return await self._client.get(f"/v1/bridge/list?{query}", ListReply)
