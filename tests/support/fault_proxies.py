"""An HTTP proxy in front of a server, which answers in its place while a fault stands."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from iota.protocol.problems import MEDIA_TYPE, Problem

Fault = Callable[[web.Request], web.Response | None]
"""The answer in place of the server's; None passes the request on."""
_HOP = ("host", "transfer-encoding", "connection", "content-length", "date", "server")


@dataclass
class FaultProxy:
    """Listens on one port of loopback for as long as it is open, unless `down`."""

    target: str
    fault: Fault | None = None
    hits: int = 0
    """Requests that a fault answered."""
    port: int = 0
    secure: ssl.SSLContext | None = None
    _runner: web.AppRunner | None = None
    _open: set[asyncio.Task[object]] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"http{'s' if self.secure else ''}://localhost:{self.port}"

    async def up(self) -> None:
        """Listen; on the same port as before."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self.secure).start()
        self.port = self._runner.addresses[0][1]

    async def down(self) -> None:
        """Refuse connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def set_fault(self, fault: Fault | None) -> None:
        """Change what happens to requests, also to those that wait for the server."""
        self.fault = fault
        for task in self._open:
            task.cancel()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        if self.fault is not None and (answer := self.fault(request)) is not None:
            self.hits += 1
            return answer
        task = asyncio.current_task()
        assert task is not None
        body, url = await request.read(), URL(self.target.rstrip("/") + request.raw_path, encoded=True)
        headers = [(k, v) for k, v in request.headers.items() if k.lower() not in _HOP]
        waiting = asyncio.create_task(_ask(request.method, url, headers, body))
        self._open.add(waiting)
        try:
            return await waiting
        except (aiohttp.ClientError, asyncio.CancelledError):
            waiting.cancel()
            return web.Response(status=502, text="bad gateway")
        finally:
            self._open.discard(waiting)


async def _ask(method: str, url: URL, headers: list[tuple[str, str]], body: bytes) -> web.Response:
    async with (
        aiohttp.ClientSession(auto_decompress=False) as http,
        http.request(method, url, headers=CIMultiDict(headers), data=body or None) as answer,
    ):
        kept = CIMultiDict((k, v) for k, v in answer.headers.items() if k.lower() not in _HOP)
        if method == "HEAD" and "Content-Length" in answer.headers:
            kept["Content-Length"] = answer.headers["Content-Length"]
        return web.Response(status=answer.status, headers=kept, body=await answer.read())


@asynccontextmanager
async def fault_proxy(target: str, secure: ssl.SSLContext | None = None) -> AsyncIterator[FaultProxy]:
    proxy = FaultProxy(target, secure=secure)
    await proxy.up()
    try:
        yield proxy
    finally:
        await proxy.set_fault(None)
        await proxy.down()


def page(status: int, text: str = "<html>Welcome to the hotel's network</html>", **headers: str) -> Fault:
    """A page that is no orchestrator's, for every request."""
    return lambda request: web.Response(status=status, text=text, content_type="text/html", headers=headers)


def problem(found: Problem, *methods: str) -> Fault:
    """An orchestrator's problem, for requests with one of `methods`."""

    def fault(request: web.Request) -> web.Response | None:
        if request.method not in methods:
            return None
        return web.Response(body=found.to_json(), status=found.status, content_type=MEDIA_TYPE)

    return fault
