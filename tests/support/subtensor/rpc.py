"""JSON-RPC 2.0 over one websocket: single requests, batches and subscriptions. Knows nothing about chains."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from tests.support.subtensor.faults import Faults, Kind

MAX_FRAME_BYTES: Final = 4 * 1024 * 1024
MAX_BATCH: Final = 256
MAX_SUBSCRIPTIONS: Final = 256
"""Of one connection."""
NOTICE_S: Final = 5.0
"""As long as the node waits for a client that does not read."""


class RpcError(Exception):
    """A request that is answered with an error."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.body = {"code": code, "message": message} | ({} if data is None else {"data": data})


@dataclass(frozen=True)
class Subscription:
    """What a client has asked to be told about."""

    id: str
    method: str
    """The name that its notices bear."""
    topic: Any


Method = Callable[["RpcConnection", list[Any]], Any]


class RpcConnection:
    """One client. Its requests are answered in their order."""

    _ids = itertools.count(1)

    def __init__(self, socket: ServerConnection, methods: dict[str, Method], faults: Faults) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self._queued: list[tuple[Subscription, Any]] = []
        self._socket = socket
        self._methods = methods
        self._faults = faults

    async def serve(self) -> None:
        """Answers until the client goes."""
        try:
            async for frame in self._socket:
                answer = await self._answer(frame)
                if answer is not None:
                    await self._socket.send(json.dumps(answer))
                queued, self._queued = self._queued, []
                for subscription, result in queued:
                    await self.notify(subscription, result)
        except ConnectionClosed:
            return

    def subscribe(self, method: str, topic: Any) -> Subscription:
        """Opens a subscription; its id is the answer that the client waits for.

        Raises:
            RpcError: the client has too many of them.
        """
        if len(self.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise RpcError(-32006, "Too many subscriptions on the connection")
        subscription = Subscription(f"s{next(self._ids)}", method, topic)
        self.subscriptions[subscription.id] = subscription
        return subscription

    def unsubscribe(self, identifier: str) -> bool:
        """Ends a subscription; whether there was one."""
        return self.subscriptions.pop(identifier, None) is not None

    def queue(self, subscription: Subscription, result: Any) -> None:
        """A notice that follows the answer to the request in hand."""
        self._queued.append((subscription, result))

    async def notify(self, subscription: Subscription, result: Any) -> None:
        """Sends a notice; a client that is gone misses it, and one that does not read is cut off."""
        params = {"subscription": subscription.id, "result": result}
        frame = json.dumps({"jsonrpc": "2.0", "method": subscription.method, "params": params})
        try:
            async with asyncio.timeout(NOTICE_S):
                await self._socket.send(frame)
        except TimeoutError:
            self.abort()
        except ConnectionClosed:
            self.subscriptions.clear()

    def abort(self) -> None:
        """Ends the connection as a cut cable does: no closing handshake, nothing more is sent."""
        self._socket.transport.abort()

    async def close_for_policy(self, reason: str) -> None:
        """Ends the connection with the close code that means a policy was violated."""
        await self._socket.close(1008, reason)

    async def _answer(self, frame: str | bytes) -> Any:
        try:
            request = json.loads(frame)
        except (ValueError, RecursionError):
            return _error(None, RpcError(-32700, "Parse error"))
        if not isinstance(request, list):
            return await self._answer_one(request)
        if not request:
            return _error(None, RpcError(-32600, "Invalid request"))
        if len(request) > MAX_BATCH:
            return _error(None, RpcError(-32010, "The batch request was too large"))
        answers = [await self._answer_one(each) for each in request]
        return [each for each in answers if each is not None] or None

    async def _answer_one(self, request: Any) -> dict[str, Any] | None:
        """The answer; None where there is none to give."""
        if not isinstance(request, dict) or not isinstance(request.get("method"), str):
            return _error(None, RpcError(-32600, "Invalid request"))
        identifier, method, params = request.get("id"), request["method"], request.get("params") or []
        try:
            if not isinstance(params, list):
                raise RpcError(-32602, "Invalid params")
            if await self._meet_fault(method):
                return None
            if method not in self._methods:
                raise RpcError(-32601, "Method not found")
            result = self._methods[method](self, params)
        except RpcError as error:
            return _error(identifier, error)
        if self._faults.take(method, Kind.DROP_AFTER):
            self.abort()
            return None
        return {"jsonrpc": "2.0", "id": identifier, "result": result}

    async def _meet_fault(self, method: str) -> bool:
        """Does what the fault that is set for this request does; whether the request ends there."""
        if fault := self._faults.take(method, Kind.SLOW):
            await asyncio.sleep(fault.seconds)
        if self._faults.take(method, Kind.HANG):
            return True
        if self._faults.take(method, Kind.DROP):
            self.abort()
            return True
        if self._faults.take(method, Kind.POLICY_CLOSE):
            await self.close_for_policy("too many requests")
            return True
        if self._faults.take(method, Kind.RATE_LIMIT):
            raise RpcError(-32005, "rate limit exceeded", {"retry_after": "60", "policy": "requests"})
        if self._faults.take(method, Kind.FULL_MEMPOOL):
            raise RpcError(
                1016, "Immediately Dropped", "The transaction couldn't enter the pool because of the limit"
            )
        return False


def _error(identifier: Any, error: RpcError) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": identifier, "error": error.body}
