"""Middleware: limits, signature and admission before a handler; problem documents and signing after it."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

from iota.http.hosts import is_loopback
from iota.http.server import admit, problem_of, read_body
from iota.http.token_buckets import TokenBuckets
from iota.identity.http_auth import SIGNATURE_HEADER, Caller, RequestVerifier, sign_response
from iota.identity.keys import Hotkey
from iota.protocol.problems import MEDIA_TYPE, Problem, ProblemType
from orchestrator.http.limits import ServerLimits
from orchestrator.http.metrics import Metrics

_HTTP: Final = {
    404: ProblemType.NOT_FOUND,
    405: ProblemType.WRONG_METHOD,
    408: ProblemType.TOO_SLOW,
    413: ProblemType.TOO_LARGE,
}
_CALLER: Final = web.RequestKey("caller", Caller)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Call:
    """A request with a verified signature, from an admitted hotkey."""

    hotkey: str
    body: bytes
    request: web.Request


SignedHandler = Callable[[Call], Awaitable[bytes]]
"""Returns the body of a 200 (JSON)."""


class Middleware:
    """Wraps handlers. `refusal(hotkey)` is None for a hotkey that may send signed requests at all.

    A join is the exception: its handler admits the hotkey, since the certificate is in the body.
    """

    def __init__(
        self,
        hotkey: Hotkey,
        verifier: RequestVerifier,
        limits: ServerLimits,
        metrics: Metrics,
        refusal: Callable[[str], Awaitable[Problem | None]],
    ) -> None:
        self._hotkey = hotkey
        self._verifier = verifier
        self._limits = limits
        self._metrics = metrics
        self._refusal = refusal
        self._addresses = TokenBuckets(limits.address_rate, limits.address_burst)
        self._hotkeys = TokenBuckets(limits.hotkey_rate, limits.hotkey_burst)

    def signed(
        self, handler: SignedHandler, max_bytes: int | None = None, *, admits: bool = False
    ) -> Handler:
        """An aiohttp handler for signed requests with at most `max_bytes` of body (default: `body_bytes`).

        `admits` says that `handler` decides itself whether it takes requests of this hotkey.
        """
        bound = self._limits.body_bytes if max_bytes is None else max_bytes

        async def handle(request: web.Request) -> web.StreamResponse:
            body = await read_body(request, bound, self._limits.body_s)
            caller = self._verifier.verify(request.headers, body, request.method, request.raw_path)
            request[_CALLER] = caller
            if not admits and (refusal := await self._refusal(caller.hotkey)):
                raise refusal
            if wait := self._hotkeys.take(caller.hotkey, time.monotonic()):
                raise Problem(ProblemType.RATE_LIMITED, "slow down", retry_after=wait)
            answer = await handler(Call(caller.hotkey, body, request))
            return web.Response(body=answer, content_type="application/json")

        return handle

    @web.middleware
    async def around(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Middleware of all routes: limits by address, errors as problems, signed answers, metrics."""
        try:
            admit(request)
            self._limit_address(request)
            response = await handler(request)
        except Problem as problem:
            response = self._answer(problem)
        except web.HTTPException as error:
            kind = _HTTP.get(error.status, ProblemType.MALFORMED_BODY)
            detail = f"{request.method} {request.path[:200]}: {error.text}"
            response = problem_of(error, self._answer(Problem(kind, detail, status=error.status)))
        except Exception:  # noqa: BLE001 - boundary for untrusted input: log, answer, continue
            _log.exception("%s %s failed", request.method, request.path[:200])
            response = self._answer(Problem(ProblemType.INTERNAL, "report this to the operator"))
        caller = request.get(_CALLER)
        if caller is not None and isinstance(response, web.Response):
            body = bytes(response.body) if isinstance(response.body, bytes | bytearray) else b""
            response.headers[SIGNATURE_HEADER] = sign_response(
                self._hotkey, caller.nonce, response.status, body, request_signature=caller.signature
            )
        resource = request.match_info.route.resource
        self._metrics.request(resource.canonical if resource else "none", response.status)
        return response

    def _answer(self, problem: Problem) -> web.Response:
        self._metrics.problem(problem.type)
        return web.Response(
            body=problem.to_json(), status=problem.status, content_type=MEDIA_TYPE, headers=problem.headers
        )

    def _limit_address(self, request: web.Request) -> None:
        if is_loopback(request.remote):
            return
        if wait := self._addresses.take(request.remote or "", time.monotonic()):
            raise Problem(ProblemType.RATE_LIMITED, "too many requests from this address", retry_after=wait)
