"""The SDK's websocket transport, with bounds that the SDK lacks.

The SDK accepts frames of 4 GiB, leaks a connection whose opening was cancelled, and counts nonces itself
although `btcli` may write with the same key. The frame size has no public option, so this module uses the
private `bittensor._transport`. The SDK's version is pinned, and `connect` asserts that the override took
effect.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

from bittensor import RpcSubstrate
from bittensor._transport import SubstrateConnection
from bittensor._transport.errors import SubstrateRequestException
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as dial
from websockets.exceptions import InvalidStatus
from websockets.protocol import State

from iota.console.redaction import one_line
from iota.http import proxy_for

MAX_FRAME_BYTES: Final = 32 << 20
"""The metagraph of a large subnet has under 1 MiB, a runtime's metadata about 2 MiB."""
_MAX_TEXT: Final = 4096
"""Characters of a node's text that are read: redacting a whole frame would take seconds."""
_OPEN_S: Final = 10.0
_CLOSE_S: Final = 1.0
# At lower levels they log frames, headers and URLs, with the secrets of an endpoint's URL.
_QUIET_LOGGERS = {
    "websockets": logging.INFO,
    "bittensor.transport": logging.WARNING,
    "bittensor.transport.raw_websocket": logging.WARNING,
}


class BoundedSubstrate(RpcSubstrate):  # type: ignore[misc]
    """A connection to one endpoint; `archives` are asked for state that it has pruned."""

    def __init__(self, endpoint: str, archives: Sequence[str] = ()) -> None:
        super().__init__(endpoint, fallback_endpoints=[], archive_endpoints=list(archives))
        self._dialled: list[Any] = []
        self._sockets: list[ClientConnection] = []
        for name, level in _QUIET_LOGGERS.items():
            logging.getLogger(name).setLevel(level)

    async def connect(self) -> None:
        """Connect, and assert that the SDK connected through `_interface` below."""
        await super().connect()
        assert self._dialled, "this SDK makes its connections in another place than the one pinned"

    async def close(self) -> None:
        """Close all connections, also those whose opening was cancelled."""
        # The stack closes all of them even if one raises, as the SDK's reader does after a malformed frame.
        async with AsyncExitStack() as stack:
            for socket in self._sockets:
                stack.push_async_callback(socket.close)
            for connection in self._dialled:
                stack.push_async_callback(connection.close)
            stack.push_async_callback(super().close)

    async def account_next_index(self, address: str) -> int:
        """The node's current answer; the SDK's may be cached."""
        return int(await self._read(lambda raw: raw.get_account_next_index(address, use_cache=False)))

    async def spec_version(self) -> int:
        """The node's current answer; the SDK's may be a block old."""
        found = await self._read(lambda raw: raw.rpc_request("state_getRuntimeVersion", [None]))
        return int(found["specVersion"])

    async def submit(self, call: Any, keypair: Any, *, nonce: int | None = None, **options: Any) -> Any:
        """Submit with the node's nonce, since another program may have used the SDK's next one."""
        if nonce is None:
            nonce = await self.account_next_index(keypair.ss58_address)
        return await super().submit(call, keypair, nonce=nonce, **options)

    def _interface(self, endpoint: str, fallbacks: list[str]) -> Any:
        connection = SubstrateConnection(endpoint, fallback_urls=fallbacks, connect_factory=self._dial)
        self._dialled.append(connection)
        return connection

    async def _dial(self, url: str) -> ClientConnection:
        try:
            socket = await dial(
                url,
                max_size=MAX_FRAME_BYTES,
                open_timeout=_OPEN_S,
                close_timeout=_CLOSE_S,
                proxy=proxy_for(url),
            )
        except InvalidStatus as error:
            status = error.response.status_code
            raise SubstrateRequestException(
                f"the endpoint refuses the connection with HTTP {status}"
            ) from None
        self._sockets = [open_one for open_one in self._sockets if open_one.state is not State.CLOSED]
        self._sockets.append(socket)
        return socket


def scrubbed(text: str) -> str:
    """Text of a node or the SDK for a message: on one line, at most 300 characters, with URLs redacted."""
    return one_line(text[:_MAX_TEXT])[:300]
