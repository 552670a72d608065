"""One connection to a node: opened at its first use, with deadlines, and reopened after a loss."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import bittensor as bt

from iota.chain.bittensor.faults import Node, fault, is_drift, is_lost
from iota.chain.errors import Incompatible, Unavailable

T = TypeVar("T")
_CLOSE_S: Final = 5.0
_NAME_S: Final = 1.0
"""Limit of the read of the runtime's version for a message, which must not delay the error much."""
_CANCELS: Final = 100
_CANCEL_PAUSE_S: Final = 0.02
"""Two seconds in all for the SDK's clean-up after a cancellation, which asks the node again."""
_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Session:
    """A connected client of the SDK."""

    client: Any
    substrate: Any
    node: Node
    users: int = 0
    """Calls that run on it."""
    retired: bool = False
    """No new calls; closed after its last one, so that a slow read does not end a write's connection."""


class Connection:
    """Runs calls on a session, with a deadline for each.

    The SDK's own limits are minutes (60 s of silence, five times), and its clean-up after a cancellation asks
    the node again. So each call is a task of its own, which is cancelled repeatedly until it ends. To be used
    in the event loop and the process that it was made in.
    """

    def __init__(self, make_substrate: Callable[[], Any], *, network: str, endpoint: str) -> None:
        """`endpoint` is shown in messages, so it must be redacted."""
        self._make_substrate = make_substrate
        self._network = network
        self._session: Session | None = None
        self._opening = asyncio.Lock()
        self._leaving: set[asyncio.Task[Any]] = set()
        self.node = Node(endpoint, None)

    async def run(
        self,
        call: Callable[[Session], Awaitable[T]],
        timeout_s: float,
        sent: Callable[[], bool] = lambda: False,
    ) -> T:
        """The result of `call`, within `timeout_s` seconds, connecting included.

        `sent` says whether a write may have been sent, so that its fate is unknown after a failure.

        Raises:
            ChainError: no result in time, or the error of the call.
        """
        task = asyncio.create_task(self._attempt(call))
        try:
            await asyncio.wait({task}, timeout=timeout_s)
        finally:
            await self._end(task)
        if task.done() and not task.cancelled():
            error = task.exception()
            if error is None:
                return task.result()
            if not isinstance(error, Exception):
                raise error
            # `from None`, since the SDK's error may quote the endpoint's URL with its secrets.
            raise fault(error, self.node, sent=sent()) from None
        raise Unavailable(f"{self.node.endpoint} did not answer within {timeout_s:g} s", fate_unknown=sent())

    async def close(self) -> None:
        """Close the connection; a later call reopens it."""
        session, self._session = self._session, None
        if session is not None:
            self._leave(_close(session.substrate))
        if self._leaving:
            await asyncio.wait(set(self._leaving), timeout=2 * _CLOSE_S)

    async def _attempt(self, call: Callable[[Session], Awaitable[T]]) -> T:
        async with self._opening:
            if self._session is None:
                self._session = await self._open()
            session = self._session
        session.users += 1
        try:
            return await call(session)
        except asyncio.CancelledError:
            self._retire(session)
            raise
        except Exception as error:
            if is_lost(error) or isinstance(error, Unavailable | Incompatible):
                self._retire(session)
            if is_drift(error):
                await self._name_runtime(session)
            raise
        finally:
            session.users -= 1
            if session.retired and not session.users:
                self._leave(_close(session.substrate))

    async def _open(self) -> Session:
        substrate = self._make_substrate()
        try:
            # `Client.connect` would also read all token symbols and write them to the home directory.
            await substrate.connect()
            self.node = Node(self.node.endpoint, int(await substrate.spec_version()))
        except BaseException:
            self._leave(_close(substrate))
            raise
        return Session(bt.Client(self._network, substrate=substrate), substrate, self.node)

    async def _name_runtime(self, session: Session) -> None:
        """Read the runtime's version again for messages, since an upgrade may have changed it."""
        try:
            async with asyncio.timeout(_NAME_S):
                self.node = Node(self.node.endpoint, int(await session.substrate.spec_version()))
        except Exception as error:  # noqa: BLE001 - the caller reports the first error
            _log.debug("the runtime's version cannot be read: %s", type(error).__name__)

    def _retire(self, session: Session) -> None:
        session.retired = True
        if self._session is session:
            self._session = None

    async def _end(self, task: asyncio.Task[Any]) -> None:
        """Cancel the task until it ends: the SDK's clean-up asks a node that may hang."""
        for _ in range(_CANCELS):
            if task.done():
                if not task.cancelled():
                    # retrieved, or asyncio logs it if the caller was cancelled
                    task.exception()
                return
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCEL_PAUSE_S)
        _log.error("a call of the SDK does not end after %d cancellations", _CANCELS)
        self._keep(task)

    def _leave(self, closing: Any) -> None:
        self._keep(asyncio.create_task(closing))

    def _keep(self, task: asyncio.Task[Any]) -> None:
        """Hold a task that nothing awaits until it ends, or `close` waits for it."""
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


async def _close(substrate: Any) -> None:
    try:
        async with asyncio.timeout(_CLOSE_S):
            await substrate.close()
    except Exception as error:  # noqa: BLE001 - a failed clean-up of the SDK changes nothing
        _log.debug("the connection closed with %s", type(error).__name__)
