"""One life of the iroh process, seen from the miner: what it is asked, and what comes from it.

What it says is checked as a stranger's words would be: a native library reads the network in it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from typing import Any, Final

from pydantic import ValidationError

from iota.http import UploadPace
from iota.system.process_sockets import start_with_socket
from iota.wire.iroh_arrivals import IrohArrivals
from iota.wire.iroh_options import IrohOptions
from iota.wire.iroh_pipe import CHUNK, Kind, Message, Pipe, PipeError
from iota.wire.iroh_status import EndpointStatus
from iota.wire.transport import TransportError, Unreachable

PROGRAM: Final = "iota.wire.iroh_process"

_PING_S: Final = 1.0
_EXIT_S: Final = 3.0
"""For the process to end by itself once its socket is closed."""
_END_S: Final = 1.0
"""For a process that has closed its socket by itself to end."""
_LAST_ERRORS_S: Final = 0.5
_ERROR_LINES: Final = 20
"""Last lines of the process's errors that are kept for the log."""
_WRITTEN: Final = struct.Struct("<I")

_log = logging.getLogger(__name__)


class _Hung(PipeError):
    """It is alive and does nothing."""


class DidNotStart(Exception):
    """The process says why it has no endpoint."""


class _Push:
    """A frame on its way out."""

    def __init__(self) -> None:
        self.credit = 0
        """Bytes that the process takes now: none before there is a stream, so that they cost no pace."""
        self.more = asyncio.Event()
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def end(self, outcome: bytes | Exception) -> None:
        if not self.answer.done():
            if isinstance(outcome, bytes):
                self.answer.set_result(outcome)
            else:
                self.answer.set_exception(outcome)
        self.more.set()


class IrohChild:
    """A started process. `run` must be running for anything to move."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        pipe: Pipe,
        options: IrohOptions,
        arrivals: IrohArrivals,
        note: Callable[[str, str, str], None],
    ) -> None:
        """`note` hears of (case, peer, text) for the log."""
        self.status: EndpointStatus | None = None
        self.ready = asyncio.Event()
        self._process, self._pipe, self._options = process, pipe, options
        self._arrivals, self._note = arrivals, note
        self._pushes: dict[int, _Push] = {}
        self._numbers = count(1)
        self._heard = 0
        """Signs of life so far."""
        self._errors: deque[str] = deque(maxlen=_ERROR_LINES)

    @classmethod
    async def start(
        cls,
        secret: bytes,
        options: IrohOptions,
        arrivals: IrohArrivals,
        note: Callable[[str, str, str], None],
    ) -> IrohChild:
        """Start a process with the network key `secret`. Raises OSError."""
        process, sock = await start_with_socket(PROGRAM)
        pipe = Pipe(sock)
        pipe.post_json(Kind.CONFIG, 0, {"secret": secret.hex(), "options": asdict(options)})
        return cls(process, pipe, options, arrivals, note)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    async def run(self) -> str:
        """Move messages until the process ends, hangs or talks nonsense; returns why.

        It has ended then, even if this is cancelled, and what was under way has failed. Raises DidNotStart.
        """
        own = [self._read(), self._pipe.write(), self._watch()]
        tasks = [asyncio.ensure_future(each) for each in own]
        errors = asyncio.ensure_future(self._collect_errors())
        why, grace = "it was stopped", _EXIT_S
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            error = next(task.exception() for task in tasks if task.done())
            why, grace = str(error), 0.0 if isinstance(error, _Hung) else _END_S
            if not isinstance(error, PipeError):
                assert error is not None
                raise error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._pipe.close()
            for push in self._pushes.values():
                push.end(Unreachable(f"the iroh process has ended: {why}"))
            self._arrivals.lose_all()
            await self._end_process(errors, grace)
        return "; ".join([why, f"exit {self._process.returncode}", *list(self._errors)[-3:]])

    async def push(self, peer: dict[str, Any], head_size: int, data: bytes, pace: UploadPace) -> bytes:
        """Push a frame at `pace`; returns the peer's answer. Raises Unreachable or TransportError."""
        number, push = next(self._numbers), _Push()
        self._pushes[number] = push
        try:
            said = {"peer": peer, "head": head_size, "size": len(data)}
            await self._pipe.send(Kind.PUSH, number, json.dumps(said).encode())  # fails where it has ended
            await self._send(number, push, memoryview(data), pace)
            return await push.answer
        except PipeError as error:
            raise Unreachable(f"the iroh process has ended: {error}") from error
        finally:
            del self._pushes[number]
            if not push.answer.done() or push.answer.cancelled():
                self._pipe.post(Kind.CANCEL, number)
            elif not push.answer.cancelled():
                push.answer.exception()  # it is looked at, also where the caller left before

    def tell(self, kind: Kind, value: object) -> None:
        """Pass PREPARE or ADDRESSES on."""
        self._pipe.post_json(kind, 0, value)

    async def _send(self, number: int, push: _Push, data: memoryview, pace: UploadPace) -> None:
        sent = 0
        while sent < len(data) and not push.answer.done():
            if push.credit <= 0:
                push.more.clear()
                await push.more.wait()
                continue
            chunk = data[sent : sent + CHUNK]
            await pace.spend(len(chunk))
            await self._pipe.send(Kind.DATA, number, chunk)
            sent += len(chunk)
            push.credit -= len(chunk)

    async def _read(self) -> None:
        place = self._arrivals.place
        try:
            async with asyncio.timeout(self._options.start_s):
                self._obey(await self._pipe.read(place))
        except TimeoutError:
            raise PipeError(f"it was not ready within {self._options.start_s:g} s") from None
        while True:
            self._obey(await self._pipe.read(place))
            await asyncio.sleep(0)  # what comes fast must not keep the loop from others

    def _obey(self, message: Message) -> None:
        try:
            self._take(message)
        except (ValueError, ValidationError, KeyError, TypeError, struct.error) as error:
            raise PipeError(f"it talks nonsense: {type(error).__name__}") from error

    def _take(self, message: Message) -> None:
        number = message.number
        match message.kind:
            case Kind.READY | Kind.PONG:
                self.status = EndpointStatus.model_validate_json(message.body)
                self._heard += 1
                self.ready.set()
            case Kind.FAILED_TO_START:
                raise DidNotStart(message.body.decode("utf-8", "replace"))
            case Kind.WRITTEN if number in self._pushes:
                self._pushes[number].credit += _WRITTEN.unpack(message.body)[0]
                self._pushes[number].more.set()
            case Kind.ANSWERED if number in self._pushes:
                self._pushes[number].end(message.body)
            case Kind.BROKEN if number in self._pushes:
                said = message.json()
                failed = Unreachable if said["unreachable"] else TransportError
                self._pushes[number].end(failed(str(said["why"])[:200]))
            case Kind.NOTE:
                said = message.json()
                self._note(str(said["case"])[:40], str(said["key"])[:80], str(said["text"])[:200])
            case Kind.KEY | Kind.HEAD | Kind.DATA | Kind.GONE:
                self._arrivals.take(message, self._pipe)

    async def _watch(self) -> None:
        """Ask for signs of life. Counts this loop's own turns, so that a loop that was late blames nobody."""
        await self.ready.wait()
        heard, silent = self._heard, 0.0
        pause = min(_PING_S, self._options.hang_s / 4)
        while silent < self._options.hang_s:
            self._pipe.post(Kind.PING)
            await asyncio.sleep(pause)
            silent = silent + pause if self._heard == heard else 0.0
            heard = self._heard
        raise _Hung(f"it hangs: no sign of life for {self._options.hang_s:g} s")

    async def _collect_errors(self) -> None:
        assert self._process.stderr is not None
        while line := await self._process.stderr.read(4096):
            self._errors.extend(line.decode("utf-8", "replace").splitlines())

    async def _end_process(self, errors: asyncio.Future[None], grace_s: float) -> None:
        """Wait `grace_s` for it to end by itself, having told its peers; kill it if it does not."""
        try:
            await asyncio.wait_for(self._process.wait(), grace_s)
        except TimeoutError:
            pass
        finally:
            if self._process.returncode is None:
                with suppress(ProcessLookupError):
                    self._process.kill()
            await self._process.wait()
            await self._last_errors(errors)

    @staticmethod
    async def _last_errors(errors: asyncio.Future[None]) -> None:
        await asyncio.wait({errors}, timeout=_LAST_ERRORS_S)
        errors.cancel()
        await asyncio.gather(errors, return_exceptions=True)
