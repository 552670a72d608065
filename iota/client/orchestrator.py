"""HTTP client for the orchestrator: each try is signed anew, answers are verified, waits are bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Self, TypeVar
from urllib.parse import urljoin, urlsplit

import aiohttp
from pydantic import BaseModel, TypeAdapter, ValidationError
from yarl import URL

from iota.identity.http_auth import SIGNATURE_HEADER, sign_request, verify_response
from iota.identity.keys import Hotkey
from iota.protocol.events import ExchangeReply
from iota.protocol.messages import (
    ExchangeRequest,
    JoinReply,
    JoinRequest,
    LeaveRequest,
    ObjectReply,
    ObjectRequest,
)
from iota.protocol.messages import Hotkey as Ss58
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import ReceiptBatch
from iota.protocol.records import BaseEpochs, BaseRecord, EpochRecord
from iota.retry import Backoff
from iota.spec import Count, Frozen, Hex32, RunSpec, Small

RETRY_FOR_S: Final = 600.0
"""How long a call is retried by default: long enough for a restart or an update of the orchestrator."""
CALL_S: Final = 20.0
"""How long one try may take, in addition to the wait that it asked for."""
_MAX_BYTES: Final = 256 << 20
"""Largest answer that is read; a miner's receipts of an epoch are the largest."""
_MAX_DESCRIBED: Final = 1000
"""Most validation errors that are described, and most characters of the description."""
BACKOFF: Final = Backoff(first_s=0.05, max_s=5.0)
"""Pauses between the tries of one call, and between failed exchanges of a conversation."""
_BATCHES: Final = TypeAdapter(list[ReceiptBatch])
_STATUS: Final = TypeAdapter(dict[str, Any])
_Model = TypeVar("_Model", bound=BaseModel)
_Value = TypeVar("_Value")


class OrchestratorUnreachable(Exception):
    """No answer came, or none that can be read, in all tries of a call."""


class UntrustedAnswer(Exception):
    """An answer that is not signed by the orchestrator, or does not follow the protocol."""


class RunInfo(Frozen):
    """The answer of `/v1/run`, which is public."""

    run: Hex32
    spec: RunSpec
    orchestrator: Ss58
    versions: tuple[Small, ...]
    epoch: Count
    step: Count


class OrchestratorClient:
    """Requests of one hotkey, or of nobody, to one orchestrator. Use as an async context.

    Every call raises `Problem` when the orchestrator refuses it, `OrchestratorUnreachable` when there is no
    answer within `retry_for_s`, and `UntrustedAnswer` when the answer is not signed by the orchestrator or is
    malformed. Connection errors and transient problems (429, 503, ...) are retried with backoff until then.
    """

    def __init__(
        self,
        hotkey: Hotkey | None,
        url: str,
        orchestrator_ss58: str | None = None,
        *,
        retry_for_s: float = RETRY_FOR_S,
    ) -> None:
        """Without a `hotkey`, only the unsigned calls can be made.

        `orchestrator_ss58` must sign all answers; None trusts the first answer of `/v1/run`.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
            raise ValueError(f"{url!r} is no orchestrator's URL: give http://HOST:PORT or https://HOST")
        self._hotkey = hotkey
        self._url = url.rstrip("/")
        self._orchestrator = orchestrator_ss58
        self._retry_for_s = retry_for_s
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def run(self, *, retry_for_s: float | None = None) -> RunInfo:
        """The run's spec, and the hotkey that orchestrates it, which later answers must be signed by.

        Raises UntrustedAnswer where it is another orchestrator, or the spec does not have the run's id.
        """
        info = _parse(RunInfo, await self._call("GET", "/v1/run", signed=False, retry_for_s=retry_for_s))
        if info.spec.id != info.run:
            raise UntrustedAnswer(f"the spec has the id {info.spec.id}, and is given as run {info.run}")
        if self._orchestrator not in (None, info.orchestrator):
            raise UntrustedAnswer(f"{self._url} is run by {info.orchestrator}, not {self._orchestrator}")
        self._orchestrator = info.orchestrator
        return info

    async def status(self) -> dict[str, Any]:
        """The public state of the run (unsigned)."""
        body = await self._call("GET", "/v1/status", signed=False)
        return _validated(_STATUS.validate_json, body, "the status is no document")

    async def manifest(self) -> bytes:
        """The data manifest as JSON (unsigned): the caller must check its id against the spec."""
        return await self._call("GET", "/v1/manifest", signed=False)

    async def base_epochs(self) -> list[int]:
        """The epochs whose base is stored, in order (unsigned)."""
        return list(_parse(BaseEpochs, await self._call("GET", "/v1/bases", signed=False)).epochs)

    async def base(self, epoch: int, stage: int) -> BaseRecord:
        """The record of a stored base (unsigned): the caller must check its keys and sizes."""
        return _parse(BaseRecord, await self._call("GET", f"/v1/bases/{epoch}/{stage}", signed=False))

    async def public_object(self, key: str) -> ObjectReply:
        """A presigned URL of a stored base's part, or of the tokenizer (unsigned)."""
        return _parse(ObjectReply, await self._call("GET", f"/v1/objects?key={key}", signed=False))

    async def join(self, request: JoinRequest) -> JoinReply:
        """Join the run, also after a restart. The reply's `manifest_url` is absolute.

        Raises UntrustedAnswer where the reply names another run or orchestrator.
        """
        reply = _parse(JoinReply, await self._call("POST", "/v1/join", request))
        if reply.spec.id != reply.run or reply.orchestrator != self._orchestrator:
            raise UntrustedAnswer("the answer to join names another run or orchestrator than it comes from")
        return reply.model_copy(update={"manifest_url": urljoin(self._url + "/", reply.manifest_url)})

    async def exchange(self, request: ExchangeRequest, *, retry_for_s: float | None = None) -> ExchangeReply:
        """One exchange. With `retry_for_s` 0 it is tried once; None is the client's default."""
        body = await self._call(
            "POST", "/v1/exchange", request, wait_s=request.wait_s, retry_for_s=retry_for_s
        )
        return _parse(ExchangeReply, body)

    async def leave(self, reason: str = "") -> None:
        """Leave the run for good: the orchestrator gives this node's work to others."""
        await self._call("POST", "/v1/leave", LeaveRequest(reason=reason))

    async def objects(self, request: ObjectRequest) -> ObjectReply:
        """A presigned URL for one key."""
        return _parse(ObjectReply, await self._call("POST", "/v1/objects", request))

    async def epoch_record(self, epoch: int) -> EpochRecord:
        """The public record of a sealed epoch whose audits are open."""
        return _parse(EpochRecord, await self._call("GET", f"/v1/audit/epochs/{epoch}"))

    async def receipts(self, epoch: int, hotkey: str) -> list[ReceiptBatch]:
        """The batches with a miner's receipts of an epoch, in order, as the miner signed them."""
        body = await self._call("GET", f"/v1/audit/epochs/{epoch}/receipts/{hotkey}")
        return _validated(_BATCHES.validate_json, body, "the receipts do not fit their form")

    async def _call(
        self,
        method: str,
        path: str,
        request: BaseModel | None = None,
        *,
        signed: bool = True,
        wait_s: float = 0.0,
        retry_for_s: float | None = None,
    ) -> bytes:
        """The body of the answer. Tries until there is one, a refusal, or the patience ends."""
        if signed and self._orchestrator is None:
            await self.run(retry_for_s=retry_for_s)
        body = b"" if request is None else request.model_dump_json().encode()
        end = time.monotonic() + (self._retry_for_s if retry_for_s is None else retry_for_s)
        failures = 0
        while True:
            try:
                return await self._try(method, path, body if signed else None, wait_s)
            except (OrchestratorUnreachable, Problem) as error:
                failures += 1
                problem = error if isinstance(error, Problem) else None
                pause_s = BACKOFF.pause_s(failures, problem.retry_after if problem else None)
                if (problem and not problem.transient) or time.monotonic() + pause_s > end:
                    raise
            await asyncio.sleep(pause_s)

    async def _try(self, method: str, path: str, body: bytes | None, wait_s: float) -> bytes:
        """One request, signed unless `body` is None."""
        if self._http is None:
            # A waiting exchange is nearly always open; other calls need connections beside it.
            connector = aiohttp.TCPConnector(limit=16, keepalive_timeout=30)
            self._http = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        url = URL(self._url + path, encoded=True)
        headers = {}
        if body is not None:
            assert self._orchestrator is not None
            assert self._hotkey is not None
            headers = sign_request(self._hotkey, method, url.raw_path_qs, body, self._orchestrator)
            headers["Content-Type"] = "application/json"
        try:
            async with (
                asyncio.timeout(CALL_S + wait_s),
                self._http.request(
                    method, url, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                answer = await _read(response)
                given = response.headers
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise OrchestratorUnreachable(f"{self._url}: {error or 'no answer in time'}") from error
        if status >= 400:
            raise Problem.from_json(status, answer, given.get("Retry-After"))
        if status != 200:
            raise UntrustedAnswer(f"{self._url} answered {path} with HTTP {status}")
        if body is not None:
            self._check_signature(headers, status, answer, given.get(SIGNATURE_HEADER))
        return answer

    def _check_signature(
        self, headers: Mapping[str, str], status: int, answer: bytes, given: str | None
    ) -> None:
        sent = {name.lower(): value for name, value in headers.items()}
        nonce, signature = int(sent["x-bittensor-nonce"]), sent["x-bittensor-signature"]
        assert self._orchestrator is not None
        if not verify_response(self._orchestrator, nonce, status, answer, given, request_signature=signature):
            raise UntrustedAnswer(f"an answer of {self._url} is not signed by {self._orchestrator}")


def is_transient(error: Exception) -> bool:
    """Whether the same call, signed anew, may succeed later."""
    signing = (ProblemType.REPLAYED, ProblemType.STALE)  # a busy machine may send its requests late
    return isinstance(error, OrchestratorUnreachable) or (
        isinstance(error, Problem) and (error.transient or error.type in signing)
    )


async def _read(response: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > _MAX_BYTES:
            raise UntrustedAnswer(f"an answer of more than {_MAX_BYTES} bytes")
        parts.append(part)
    return b"".join(parts)


def _parse(model: type[_Model], body: bytes) -> _Model:
    return _validated(model.model_validate_json, body, f"the answer is no {model.__name__}")


def _validated(validate: Callable[[bytes], _Value], body: bytes, fault: str) -> _Value:
    """The parsed body. Raises UntrustedAnswer, which begins with `fault`, for a malformed one.

    Its text is bounded: a full description of a hostile answer would be many times as long as the answer.
    """
    try:
        return validate(body)
    except ValidationError as error:
        count = error.error_count()
        text = str(error)[:_MAX_DESCRIBED] if count <= _MAX_DESCRIBED else f"{count} fields do not fit"
        raise UntrustedAnswer(f"{fault}: {text}") from None
