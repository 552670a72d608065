"""A node's calls to the orchestrator: signed anew at every try, answers verified, waits bounded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType
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
from iota.protocol.records import EpochRecord
from iota.retry import Backoff
from iota.spec import Count, Frozen, Hex32, RunSpec, Small

PATIENCE_S: Final = 600.0
"""How long a call rides out an orchestrator that is away, by default."""
CALL_S: Final = 20.0
"""How long one try may take, beyond what it asked the server to wait."""
_MAX_BYTES: Final = 256 << 20
_TOLD: Final = 1000
"""Most errors that are described at all, and most characters of the description."""
BACKOFF: Final = Backoff(first_s=0.05, max_s=5.0)
"""Between the tries of one call, and of one exchange after another."""
_BATCHES: Final = TypeAdapter(list[ReceiptBatch])
_Model = TypeVar("_Model", bound=BaseModel)


class OrchestratorUnreachable(Exception):
    """No answer, or none that can be read; the call was repeated while its patience lasted."""


class UntrustedAnswer(Exception):
    """An answer that the orchestrator did not sign, or that is not what its protocol says."""


class RunInfo(Frozen):
    """What an orchestrator says of its run to anyone."""

    run: Hex32
    spec: RunSpec
    orchestrator: Ss58
    versions: tuple[Small, ...]
    epoch: Count
    step: Count


class OrchestratorClient:
    """Calls for one hotkey to one orchestrator. Use as an async context.

    Every call raises `Problem` when the orchestrator refuses it, `OrchestratorUnreachable` when it
    does not answer within the patience, `UntrustedAnswer` when the answer is not its own.
    Connection errors, 429 and 503 are retried with growing, jittered pauses.
    """

    def __init__(
        self,
        hotkey: Hotkey,
        url: str,
        orchestrator_ss58: str | None = None,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`orchestrator_ss58` is who must answer; None trusts the first answer of `/v1/run`."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
            raise ValueError(f"{url!r} is no orchestrator's URL: give http://HOST:PORT or https://HOST")
        self._hotkey = hotkey
        self._url = url.rstrip("/")
        self._orchestrator = orchestrator_ss58
        self._patience_s = patience_s
        self._http: aiohttp.ClientSession | None = None

    @property
    def hotkey(self) -> Hotkey:
        return self._hotkey

    @property
    def orchestrator(self) -> str | None:
        """Its address, once known."""
        return self._orchestrator

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = None

    async def run(self, *, patience_s: float | None = None) -> RunInfo:
        """The run, and who runs it.

        Raises:
            UntrustedAnswer: it is another orchestrator, or the spec is not the one that its id names.
        """
        info = _parse(RunInfo, await self._get("/v1/run", patience_s))
        if info.spec.id != info.run:
            raise UntrustedAnswer(f"the spec has the id {info.spec.id}, and is given as run {info.run}")
        if self._orchestrator not in (None, info.orchestrator):
            raise UntrustedAnswer(f"{self._url} is run by {info.orchestrator}, not {self._orchestrator}")
        self._orchestrator = info.orchestrator
        return info

    async def status(self, *, patience_s: float | None = None) -> dict[str, Any]:
        """The public state of the run."""
        body = await self._get("/v1/status", patience_s)
        try:
            status = TypeAdapter(dict[str, Any]).validate_json(body)
        except ValidationError as error:
            raise UntrustedAnswer(f"the status is no document: {_misfit(error)}") from None
        return status

    async def manifest(self, *, patience_s: float | None = None) -> bytes:
        """The data manifest as JSON; its id is for the reader to check."""
        return await self._get("/v1/manifest", patience_s)

    async def join(self, request: JoinRequest, *, patience_s: float | None = None) -> JoinReply:
        reply = _parse(JoinReply, await self._signed("POST", "/v1/join", request, patience_s))
        if reply.spec.id != reply.run or reply.orchestrator != self._orchestrator:
            raise UntrustedAnswer("the answer to join names another run or orchestrator than it comes from")
        return reply.model_copy(update={"manifest_url": urljoin(self._url + "/", reply.manifest_url)})

    async def exchange(self, request: ExchangeRequest, *, patience_s: float | None = None) -> ExchangeReply:
        """One exchange; with 0 s of patience it is tried once."""
        body = await self._signed("POST", "/v1/exchange", request, patience_s, wait_s=request.wait_s)
        return _parse(ExchangeReply, body)

    async def leave(self, reason: str = "", *, patience_s: float | None = None) -> None:
        await self._signed("POST", "/v1/leave", LeaveRequest(reason=reason), patience_s)

    async def objects(self, request: ObjectRequest, *, patience_s: float | None = None) -> ObjectReply:
        """A presigned URL for one key."""
        return _parse(ObjectReply, await self._signed("POST", "/v1/objects", request, patience_s))

    async def epoch_record(self, epoch: int, *, patience_s: float | None = None) -> EpochRecord:
        """The public record of a sealed epoch whose audits are open."""
        return _parse(EpochRecord, await self._signed("GET", f"/v1/audit/epochs/{epoch}", None, patience_s))

    async def receipts(
        self, epoch: int, hotkey: str, *, patience_s: float | None = None
    ) -> list[ReceiptBatch]:
        """The batches that hold a miner's receipts of an epoch, as it signed them, in order."""
        path = f"/v1/audit/epochs/{epoch}/receipts/{hotkey}"
        body = await self._signed("GET", path, None, patience_s)
        try:
            return _BATCHES.validate_json(body)
        except ValidationError as error:
            raise UntrustedAnswer(f"the receipts do not fit their form: {_misfit(error)}") from None

    async def _get(self, path: str, patience_s: float | None) -> bytes:
        return await self._persist("GET", path, None, patience_s, signed=False)

    async def _signed(
        self,
        method: str,
        path: str,
        request: BaseModel | None,
        patience_s: float | None,
        *,
        wait_s: float = 0.0,
    ) -> bytes:
        if self._orchestrator is None:
            await self.run(patience_s=patience_s)
        body = b"" if request is None else request.model_dump_json().encode()
        return await self._persist(method, path, body, patience_s, wait_s=wait_s, signed=True)

    async def _persist(
        self,
        method: str,
        path: str,
        body: bytes | None,
        patience_s: float | None,
        *,
        signed: bool,
        wait_s: float = 0.0,
    ) -> bytes:
        """Try until an answer, a refusal, or the end of the patience."""
        end = time.monotonic() + (self._patience_s if patience_s is None else patience_s)
        failures = 0
        while True:
            try:
                return await self._try(method, path, body, wait_s, signed)
            except (OrchestratorUnreachable, Problem) as error:
                failures += 1
                problem = error if isinstance(error, Problem) else None
                pause_s = BACKOFF.pause_s(failures, problem.retry_after if problem else None)
                if (problem and not problem.transient) or time.monotonic() + pause_s > end:
                    raise
            await asyncio.sleep(pause_s)

    async def _try(self, method: str, path: str, body: bytes | None, wait_s: float, signed: bool) -> bytes:
        if self._http is None:
            # A poll is open nearly always; news and objects need connections beside it.
            connector = aiohttp.TCPConnector(limit=16, keepalive_timeout=30)
            self._http = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        url = URL(self._url + path, encoded=True)
        headers = {}
        if signed:
            assert self._orchestrator is not None
            headers = sign_request(self._hotkey, method, url.raw_path_qs, body or b"", self._orchestrator)
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
        if signed:
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


def is_passing(error: Exception) -> bool:
    """Whether the same call, signed anew, may succeed later."""
    signing = (ProblemType.REPLAYED, ProblemType.STALE)  # a busy machine delays its own requests
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
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise UntrustedAnswer(f"the answer is no {model.__name__}: {_misfit(error)}") from None


def _misfit(error: ValidationError) -> str:
    """A short account: that of a hostile answer would be many times as long as the answer."""
    count = error.error_count()
    return str(error)[:_TOLD] if count <= _TOLD else f"{count} fields do not fit"
