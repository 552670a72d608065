"""One connection to a node: opened when needed, bounded in time, opened anew after a loss."""

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
_CANCELS: Final = 100
_CANCEL_PAUSE_S: Final = 0.02
_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Session:
    """An SDK client that is connected."""

    client: Any
    substrate: Any
    node: Node
    users: int = 0
    retired: bool = False
    """Closed as soon as nobody uses it: one slow read does not take a write's connection away."""


class Connection:
    """Gives calls a session, and ends them in time.

    The SDK's own limits are minutes (60 s of silence, five times), and what it does when it is cancelled
    asks the node again. So each call is a task of its own, which is cancelled until it ends. It is used in
    the event loop and the process that it was made in.
    """

    def __init__(self, make_substrate: Callable[[], Any], *, network: str, endpoint: str) -> None:
        """`endpoint` is redacted: it shows in messages."""
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

        `sent` says whether a write may have left us.

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
            # Without the SDK's error behind it, which may quote the endpoint's URL with its secrets.
            raise fault(error, self.node, sent=sent()) from None
        raise Unavailable(f"{self.node.endpoint} did not answer within {timeout_s:g} s", fate_unknown=sent())

    async def close(self) -> None:
        """Ends the connection; a later call opens it anew."""
        session, self._session = self._session, None
        if session is not None:
            self._leave(_hang_up(session.substrate))
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
                self._leave(_hang_up(session.substrate))

    async def _open(self) -> Session:
        substrate = self._make_substrate()
        try:
            # Not `Client.connect`: it also scans the chain for token symbols and writes them to the home
            # directory.
            await substrate.connect()
            self.node = Node(self.node.endpoint, int(await substrate.spec_version()))
        except BaseException:
            self._leave(_hang_up(substrate))
            raise
        return Session(bt.Client(self._network, substrate=substrate), substrate, self.node)

    async def _name_runtime(self, session: Session) -> None:
        """The runtime may be another than when the connection was opened, and messages name it."""
        try:
            async with asyncio.timeout(_NAME_S):
                self.node = Node(self.node.endpoint, int(await session.substrate.spec_version()))
        except Exception as error:  # noqa: BLE001 - the error in hand is the one to report
            _log.debug("the runtime's version cannot be read: %s", type(error).__name__)

    def _retire(self, session: Session) -> None:
        session.retired = True
        if self._session is session:
            self._session = None

    async def _end(self, task: asyncio.Task[Any]) -> None:
        """Cancels as often as it takes: the SDK's clean-up after the first asks a node that may hang."""
        for _ in range(_CANCELS):
            if task.done():
                if not task.cancelled():
                    # looked at, so that asyncio does not complain when the caller was cancelled
                    task.exception()
                return
            task.cancel()
            await asyncio.wait({task}, timeout=_CANCEL_PAUSE_S)
        _log.error("a call of the SDK does not end after %d cancellations", _CANCELS)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    def _leave(self, farewell: Any) -> None:
        task = asyncio.create_task(farewell)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)


async def _hang_up(substrate: Any) -> None:
    try:
        async with asyncio.timeout(_CLOSE_S):
            await substrate.close()
    except Exception as error:  # noqa: BLE001 - the SDK's clean-up, which nobody waits for
        _log.debug("the connection closed with %s", type(error).__name__)
