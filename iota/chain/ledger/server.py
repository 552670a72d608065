"""The ledger's HTTP interface: open reads, and writes signed by their hotkey.

SQLite runs on the event loop: a call takes a millisecond, and the swarm of one machine makes few.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from aiohttp import web
from pydantic import ValidationError

from iota.chain.chain import TxCode, TxResult
from iota.chain.errors import BadInput
from iota.chain.ledger import messages
from iota.chain.ledger.book import LedgerBook
from iota.chain.ledger.database import LedgerDatabase
from iota.console.signals import call_on_stop
from iota.console.watch import Watch
from iota.http.server import ConnectionLimits, admit, listening, problem_of, read_body
from iota.identity.http_auth import SIGNATURE_HEADER, Caller, RequestVerifier, sign_response
from iota.protocol.problems import Problem, ProblemType
from iota.settings.sentences import sentence

_BOOK: Final = web.AppKey("book", LedgerBook)
_VERIFIER: Final = web.AppKey("verifier", RequestVerifier)
_WATCH: Final = web.AppKey("watch", Watch)
_CLOCK: Final[web.AppKey[Callable[[], int]]] = web.AppKey("clock")
_BODY_TIMEOUT_S: Final = 10.0
"""Longest that a request's body may take, so that no connection is held open."""
_LIMITS: Final = ConnectionLimits(shutdown_s=2.0)
_NANO: Final = 1e-9
_RETRY_S: Final = 5.0
"""Retry-After while nothing can be stored."""
_STATUS: Final = {
    TxCode.RATE_LIMITED: 429,
    TxCode.NOT_REGISTERED: 403,
    TxCode.NOT_AUTHORIZED: 403,
    TxCode.ALREADY_EXISTS: 409,
    TxCode.LIMIT_EXCEEDED: 409,
    TxCode.SUBNET_NOT_EXISTS: 404,
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Body = TypeVar("Body", bound=messages.Message)


def make_app(
    db_path: str | Path, *, clock: Callable[[], int] = time.time_ns, **choices: Any
) -> web.Application:
    """The ledger in the file `db_path`, created if it is missing.

    Args:
        clock: Unix time in nanoseconds, for blocks; the signatures of requests use the real time.
        choices: fields of `LedgerParameters` that differ from the defaults.

    Raises:
        ValueError: the file cannot be used, or was created with other choices.
        sqlite3.Error, OSError: the disk is full or fails.
    """
    database = LedgerDatabase(Path(db_path), choices, clock() * _NANO)
    try:
        book = LedgerBook(database, clock() * _NANO)
    except BaseException:
        database.close()
        raise
    app = web.Application(middlewares=[_problems])
    app[_BOOK] = book
    app[_CLOCK] = clock
    app[_WATCH] = Watch("the ledger", endless=True)
    app[_VERIFIER] = RequestVerifier(book.key.ss58, fence_ns=book.nonce_fence())
    app.add_routes(
        [
            web.get("/v1/info", _info),
            web.get("/v1/head", _head),
            web.get("/v1/blocks/{number:[0-9]{1,15}}", _block),
            web.get("/v1/subnets/{netuid:[0-9]{1,5}}", _subnet),
            web.get("/v1/subnets/{netuid:[0-9]{1,5}}/weights", _weights),
            web.get("/v1/subnets/{netuid:[0-9]{1,5}}/epoch", _epoch),
            web.get("/v1/subnets/{netuid:[0-9]{1,5}}/commitments/{hotkey}", _commitment),
            web.post("/v1/register", _write(messages.RegisterRequest, _register)),
            web.post("/v1/serve", _write(messages.ServeRequest, _serve)),
            web.post("/v1/commit", _write(messages.CommitRequest, _commit)),
            web.post("/v1/weights", _write(messages.WeightsRequest, _set_weights)),
        ]
    )

    async def close(_: web.Application) -> None:
        database.close()

    app.on_cleanup.append(close)
    return app


async def serve(
    db_path: str | Path,
    host: str,
    port: int,
    *,
    ready: Callable[[str], None],
    **choices: Any,
) -> None:
    """Runs the ledger until SIGINT or SIGTERM, or until cancelled.

    `ready` is called with the URL when the port is open; port 0 picks a free one. `choices` and errors are
    those of `make_app`; a full disk is waited for.
    """

    watch = Watch("the ledger")

    async def until_stopped() -> None:
        stop = asyncio.Event()
        async with listening(make_app(db_path, **choices), host, port, _LIMITS) as url:
            call_on_stop(stop.set)
            watch.passed()
            ready(url)
            await stop.wait()

    await watch.persevere(until_stopped)


# ---- reads ----------------------------------------------------------------------------------------


async def _info(request: web.Request) -> web.Response:
    book = _advanced(request)
    info = messages.LedgerInfo(
        version=messages.LEDGER_VERSION,
        hotkey=book.key.ss58,
        genesis=book.block(0).hash,
        block_time_s=book.parameters.block_time_s,
        netuid=book.parameters.netuid,
    )
    return _json(info.model_dump_json().encode())


async def _head(request: web.Request) -> web.Response:
    return _json(messages.BLOCK.dump_json(_advanced(request).head()))


async def _block(request: web.Request) -> web.Response:
    return _json(messages.BLOCK.dump_json(_advanced(request).block(int(request.match_info["number"]))))


async def _subnet(request: web.Request) -> web.Response:
    return _json(messages.SUBNET.dump_json(_of_subnet(request).subnet()))


async def _weights(request: web.Request) -> web.Response:
    return _json(messages.WEIGHTS.dump_json(tuple(_of_subnet(request).weights())))


async def _commitment(request: web.Request) -> web.Response:
    at_block = _number(request, "at_block")
    found = _of_subnet(request).commitment(request.match_info["hotkey"], at_block)
    answer = (
        messages.CommitmentAnswer(found=False)
        if found is None
        else messages.CommitmentAnswer(found=True, block=found.block, data=found.data.hex())
    )
    return _json(answer.model_dump_json().encode())


async def _epoch(request: web.Request) -> web.Response:
    """The epoch status; with `after=k`, once more than k epochs have run or `MAX_WAIT_S` has passed."""
    book = _of_subnet(request)
    after = _number(request, "after")
    loop = asyncio.get_running_loop()
    deadline = loop.time() + messages.MAX_WAIT_S
    status = book.epoch_status(_now_s(request))
    while after is not None and status.index <= after and loop.time() < deadline:
        # The time of the next epoch is known, so this sleeps until then; 1 ms more against rounding.
        await asyncio.sleep(min(status.seconds_remaining + 0.001, deadline - loop.time()))
        status = _advanced(request).epoch_status(_now_s(request))
    return _json(messages.EPOCH.dump_json(status))


# ---- writes ---------------------------------------------------------------------------------------


def _register(book: LedgerBook, caller: Caller, body: messages.RegisterRequest, now_s: float) -> TxResult:
    return book.register(caller.hotkey, body.role, now_s, caller.nonce)


def _serve(book: LedgerBook, caller: Caller, body: messages.ServeRequest, now_s: float) -> TxResult:
    return book.serve(caller.hotkey, body.ip, body.port, now_s, caller.nonce)


def _commit(book: LedgerBook, caller: Caller, body: messages.CommitRequest, now_s: float) -> TxResult:
    return book.commit(caller.hotkey, bytes.fromhex(body.data), now_s, caller.nonce)


def _set_weights(book: LedgerBook, caller: Caller, body: messages.WeightsRequest, now_s: float) -> TxResult:
    return book.set_weights(caller.hotkey, body.weights, body.version_key, now_s, caller.nonce)


def _write(
    kind: type[Body], act: Callable[[LedgerBook, Caller, Body, float], TxResult]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A handler that verifies the sender, parses the body, applies the write and signs the answer."""

    async def handle(request: web.Request) -> web.Response:
        raw = await read_body(request, messages.MAX_BODY_BYTES, _BODY_TIMEOUT_S)
        caller = request.app[_VERIFIER].verify(request.headers, raw, request.method, request.raw_path)
        body = kind.model_validate_json(raw)
        _check_netuid(request, getattr(body, "netuid"))  # noqa: B009 - every write message has one
        book = request.app[_BOOK]
        result = act(book, caller, body, _now_s(request))
        request.app[_WATCH].passed()
        status = 200 if result.ok else _STATUS.get(result.code, 422)
        content = messages.RESULT.dump_json(result)
        signature = sign_response(book.key, caller.nonce, status, content, request_signature=caller.signature)
        return _json(content, status, {SIGNATURE_HEADER: signature})

    return handle


# ---- both -----------------------------------------------------------------------------------------


@web.middleware
async def _problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as RFC 9457 problem documents. A full disk is 503, for reads too: they store new blocks."""
    try:
        admit(request)
        return await handler(request)
    except Problem as problem:
        return _problem(problem.type, problem.status, problem.detail, problem.headers)
    except sqlite3.Error as error:
        request.app[_WATCH].failed(error, _RETRY_S)
        unavailable = Problem(
            ProblemType.UNAVAILABLE, f"the ledger cannot store: {error}", retry_after=_RETRY_S
        )
        return _problem(unavailable.type, unavailable.status, unavailable.detail, unavailable.headers)
    except BadInput as error:
        return _problem("bad-input", 404, str(error))
    except ValidationError as error:
        return _problem("malformed", 400, sentence(error))
    except web.HTTPException as error:
        return problem_of(error, _problem("http", error.status, error.text or error.reason))


def _problem(type: str, status: int, detail: str, headers: Mapping[str, str] | None = None) -> web.Response:
    document = {"type": type, "title": type, "status": status, "detail": detail}
    return web.json_response(
        document, status=status, headers=headers, content_type="application/problem+json"
    )


def _json(content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=content, status=status, headers=headers, content_type="application/json")


def _now_s(request: web.Request) -> float:
    return request.app[_CLOCK]() * _NANO


def _advanced(request: web.Request) -> LedgerBook:
    """The ledger at the block of this moment."""
    book = request.app[_BOOK]
    before = book.head().number
    if book.advance(_now_s(request)) > before:
        request.app[_WATCH].passed()
    return book


def _of_subnet(request: web.Request) -> LedgerBook:
    """As `_advanced`; raises BadInput where the path names another subnet."""
    _check_netuid(request, int(request.match_info["netuid"]))
    return _advanced(request)


def _check_netuid(request: web.Request, netuid: int) -> None:
    own = request.app[_BOOK].parameters.netuid
    if netuid != own:
        raise BadInput(f"there is no subnet {netuid} on this ledger, only {own}")


def _number(request: web.Request, name: str) -> int | None:
    """A number in the query; raises BadInput for other text, or more digits than SQLite's integers hold."""
    text: Any = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise BadInput(f"{name} is a number, not {text[:20]!r}")
    return int(text)
