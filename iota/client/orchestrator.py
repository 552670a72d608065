"""HTTP client for the orchestrator: each try is signed anew, answers are verified, waits are bounded."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, Self, TypeVar
from urllib.parse import urljoin

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from yarl import URL

from iota.client.known_orchestrator import KnownOrchestrator, OtherSigner
from iota.console.classification import passing
from iota.console.conditions import Condition
from iota.console.watch import Watch
from iota.http import Answer, AnswerRefused, HttpClient, NoAnswer, Reach
from iota.identity.http_auth import SIGNATURE_HEADER, sign_request, verify_response
from iota.identity.keys import Hotkey
from iota.identity.signatures import is_address
from iota.protocol.contacts import ContactsReply, ContactsRequest, SignedContact
from iota.protocol.echo import EchoReply, EchoRequest
from iota.protocol.events import ExchangeReply
from iota.protocol.member_records import MemberRecord
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
from iota.protocol.records import BaseEpochs, BaseRecord
from iota.protocol.run_status import MalformedStatus, take_status
from iota.protocol.seals import SealedPart, SignedSeal
from iota.protocol.status_delta import Status
from iota.protocol.verdicts import VerdictPage
from iota.protocol.workers import Revocation, RevokeReply
from iota.retry import Backoff
from iota.settings.sentences import sentence
from iota.settings.urls import http_url
from iota.spec import Count, Frozen, Hex32, Listed, RunSpec, Small

RETRY_FOR_S: Final = 600.0
"""How long a call is retried by default: long enough for a restart or an update of the orchestrator."""
CALL_S: Final = 20.0
"""How long one try may take, in addition to the wait that it asked for."""
_MAX_BYTES: Final = 256 << 20
"""Largest answer that is read; a miner's receipts of an epoch are the largest."""
_MAX_DESCRIBED: Final = 300
"""Characters of the description of a malformed answer."""
_PASSING: Final = (
    Condition.AWAY, Condition.BUSY, Condition.CERTIFICATE, Condition.STRANGER, Condition.CLOCK,
    Condition.NOT_REGISTERED, Condition.NO_PERMIT, Condition.NOT_LISTED,
)  # fmt: skip
"""What a member outlasts without a new join: the orchestrator keeps its place."""
BACKOFF: Final = Backoff(first_s=0.05, max_s=5.0)
"""Pauses between the tries of one call, and between failed exchanges of a conversation."""
_BATCHES: Final = TypeAdapter(Listed[ReceiptBatch])
_LINKS: Final = TypeAdapter(dict[Ss58, Hex32])
ShortText = Annotated[str, Field(max_length=100)]
_Model = TypeVar("_Model", bound=BaseModel)
_Value = TypeVar("_Value")


class OrchestratorUnreachable(Exception):
    """No answer came, or none that can be read, in all tries of a call."""


class UntrustedAnswer(Exception):
    """An answer that is not signed by the orchestrator, or does not follow the protocol."""


class OtherRun(Exception):
    """The orchestrator has another run than the one that this process takes part in."""


class RunInfo(Frozen):
    """The answer of `/v1/run`, which is public."""

    run: Hex32
    spec: RunSpec
    orchestrator: Ss58
    versions: tuple[Small, ...]
    epoch: Count
    step: Count
    software: dict[ShortText, ShortText] = Field(default_factory=dict, max_length=32)
    """Versions of what the orchestrator runs on. Informational only."""


def new_nonce() -> str:
    """A nonce for `/v1/run`, so that its answer cannot be an older one."""
    return str(secrets.randbits(63))


def new_session() -> int:
    """A number for a node's process, by which another process with the same key is told apart from it.

    It is not of each join: one that is repeated, or comes late, is then still of this process.
    """
    return 1 + secrets.randbits(52)


def parse_run(nonce: str, answer: Answer) -> RunInfo:
    """The answer to `GET /v1/run?nonce=NONCE`, of status 200.

    Raises UntrustedAnswer unless the spec has the run's id, and the orchestrator that it names has signed it.
    """
    info = _parse(RunInfo, answer.body)
    if info.spec.id != info.run:
        raise UntrustedAnswer(f"the spec has the id {info.spec.id}, and is given as run {info.run}")
    given = answer.headers.get(SIGNATURE_HEADER)
    server, number = info.orchestrator, int(nonce)
    if not verify_response(server, number, answer.status, answer.body, given, request_signature=""):
        raise UntrustedAnswer(f"it names {server} as its orchestrator, who did not sign that")
    return info


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
        known: KnownOrchestrator | None = None,
        retry_for_s: float = RETRY_FOR_S,
        watch: Watch | None = None,
        reach: Reach | None = None,
    ) -> None:
        """Without a `hotkey`, only the unsigned calls can be made.

        `orchestrator_ss58` must sign all answers. None means the hotkey that is `known`, else the first
        that signs. `watch` is told of the tries of a call that fail, and that the node works again once
        it has joined. `reach` is told where the orchestrator is.

        Raises ValueError for an `orchestrator_ss58` that is no address.
        """
        if orchestrator_ss58 is not None and not is_address(orchestrator_ss58):
            raise ValueError(f"--orchestrator-hotkey {orchestrator_ss58} is mistyped: it is no ss58 address")
        self._hotkey = hotkey
        self._url = http_url(url)
        self._orchestrator, self._pinned = orchestrator_ss58, orchestrator_ss58 is not None
        self._known = known
        self.retry_for_s = retry_for_s
        # A waiting exchange is nearly always open; other calls need connections beside it.
        self._http = HttpClient(16, None if reach is None else reach.orchestrator_at)
        self._watch = watch

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._http.close()

    async def run(self, *, retry_for_s: float | None = None) -> RunInfo:
        """The run's spec, and the hotkey that orchestrates it, which signs this and all later answers.

        Raises UntrustedAnswer where it is another orchestrator than the given or the known one, or has not
        signed the answer.
        """
        nonce = new_nonce()
        answer = await self._ask("GET", f"/v1/run?nonce={nonce}", signed=False, retry_for_s=retry_for_s)
        info = parse_run(nonce, answer)
        if self._orchestrator not in (None, info.orchestrator):
            raise UntrustedAnswer(f"{self._url} is run by {info.orchestrator}, not {self._orchestrator}")
        if self._known is not None:
            try:
                self._known.check(info.run, info.orchestrator, given=self._pinned)
            except OtherSigner as error:
                raise UntrustedAnswer(str(error)) from None
        self._orchestrator = info.orchestrator
        return info

    async def status(self) -> Status:
        """The public state of the run (unsigned)."""
        body = await self._call("GET", "/v1/status", signed=False)
        try:
            return take_status(None, body)
        except MalformedStatus as error:
            raise UntrustedAnswer(f"the answer is no status of a run: {error}") from None

    async def member(self, hotkey: str, *, retry_for_s: float | None = None) -> MemberRecord:
        """What the orchestrator has on record about a member (unsigned)."""
        path = f"/v1/members/{hotkey}"
        return _parse(MemberRecord, await self._call("GET", path, signed=False, retry_for_s=retry_for_s))

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
        if self._watch is not None:
            self._watch.passed()
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

    async def revoke(self, revocation: Revocation) -> RevokeReply:
        """Revoke a worker of this client's hotkey."""
        return _parse(RevokeReply, await self._call("POST", "/v1/revoke", revocation))

    async def objects(self, request: ObjectRequest) -> ObjectReply:
        """A presigned URL for one key."""
        return _parse(ObjectReply, await self._call("POST", "/v1/objects", request))

    async def contacts(
        self,
        contact: SignedContact | None,
        wanted: Sequence[str],
        *,
        retry_for_s: float | None = None,
    ) -> tuple[SignedContact, ...]:
        """Publish this member's contact, if it is given, and get those of others that are known.

        At most `MAX_CONTACTS` may be wanted. The caller must check each (`iota.identity.contacts`).
        """
        request = ContactsRequest(contact=contact, wanted=tuple(wanted))
        body = await self._call("POST", "/v1/contacts", request, retry_for_s=retry_for_s)
        return _parse(ContactsReply, body).contacts

    async def echo(self, up: int, down: int, *, retry_for_s: float = 0.0) -> EchoReply:
        """Send `up` bytes and get `down` bytes, each at most `MAX_ECHO`, for the caller to take the time.

        Tried once if nothing else is said: a pause between two tries would be measured too. The client's
        first signed call asks for the run before, so make another one first.
        """
        request = EchoRequest(answer=down, filler="0" * up)
        return _parse(EchoReply, await self._call("POST", "/v1/echo", request, retry_for_s=retry_for_s))

    async def seal(self, epoch: int) -> SignedSeal:
        """The seal of an epoch (unsigned): the caller must check the signature in it."""
        return _parse(SignedSeal, await self._call("GET", f"/v1/epochs/{epoch}/seal", signed=False))

    async def record(self, epoch: int) -> bytes:
        """The record of a sealed epoch as JSON (unsigned): the caller must check its digest by the seal."""
        return await self._call("GET", f"/v1/epochs/{epoch}/record", signed=False)

    async def sealed_part(self, epoch: int, hotkey: str) -> SealedPart:
        """A miner's part of a record (unsigned): the caller must check that the seal covers it."""
        path = f"/v1/epochs/{epoch}/record/{hotkey}"
        return _parse(SealedPart, await self._call("GET", path, signed=False))

    async def receipts(self, epoch: int, hotkey: str) -> list[ReceiptBatch]:
        """A miner's receipt batches of a sealed epoch, in order, as the miner signed them (unsigned)."""
        body = await self._call("GET", f"/v1/epochs/{epoch}/receipts/{hotkey}", signed=False)
        return list(_validated(_BATCHES.validate_json, body, "the receipts do not fit their form"))

    async def verdicts(self, epoch: int, page: int, *, retry_for_s: float | None = None) -> VerdictPage:
        """A page of an epoch's verdicts, from page 0 (unsigned): the caller must check their signatures."""
        path = f"/v1/epochs/{epoch}/verdicts?page={page}"
        return _parse(VerdictPage, await self._call("GET", path, signed=False, retry_for_s=retry_for_s))

    async def links(self, epoch: int) -> dict[str, str]:
        """validator -> the link that it revealed for a sealed epoch (unsigned)."""
        body = await self._call("GET", f"/v1/epochs/{epoch}/links", signed=False)
        return _validated(_LINKS.validate_json, body, "the links do not fit their form")

    async def post(self, path: str, request: BaseModel, answer: type[_Model], **how: Any) -> _Model:
        """Another signed call (`iota.client.bridge`); `how` is as for `_ask`."""
        return _parse(answer, await self._call("POST", path, request, **how))

    async def get(self, path: str, answer: type[_Model], **how: Any) -> _Model:
        """Another unsigned call; `how` is as for `_ask`."""
        return _parse(answer, await self._call("GET", path, signed=False, **how))

    async def _call(self, method: str, path: str, request: BaseModel | None = None, **how: Any) -> bytes:
        """The body of what `_ask` returns."""
        return (await self._ask(method, path, request, **how)).body

    async def _ask(
        self,
        method: str,
        path: str,
        request: BaseModel | None = None,
        *,
        signed: bool = True,
        wait_s: float = 0.0,
        retry_for_s: float | None = None,
    ) -> Answer:
        """The answer, of status 200. Tries until there is one, a refusal, or the patience ends."""
        if signed and self._orchestrator is None:
            await self.run(retry_for_s=retry_for_s)
        body = b"" if request is None else request.model_dump_json().encode()
        end = time.monotonic() + (self.retry_for_s if retry_for_s is None else retry_for_s)
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
                if self._watch is not None:
                    self._watch.failed(error, pause_s)
            await asyncio.sleep(pause_s)

    async def _try(self, method: str, path: str, body: bytes | None, wait_s: float) -> Answer:
        """One request, signed unless `body` is None."""
        url = URL(self._url + path, encoded=True)
        headers = {}
        if body is not None:
            assert self._orchestrator is not None
            assert self._hotkey is not None
            headers = sign_request(self._hotkey, method, url.raw_path_qs, body, self._orchestrator)
            headers["Content-Type"] = "application/json"
        try:
            answer = await self._http.fetch(
                method, url, max_bytes=_MAX_BYTES, timeout_s=CALL_S + wait_s, headers=headers, body=body
            )
        except NoAnswer as error:
            raise OrchestratorUnreachable(f"{self._url}: {error}") from error
        except AnswerRefused as error:
            raise UntrustedAnswer(f"{self._url} answered {path}: {error}") from error
        status, given = answer.status, answer.headers
        if status >= 400:
            problem = Problem.from_json(status, answer.body, given.get("Retry-After"))
            # Nobody else may end a node for good, or say what a variable is.
            if passing(problem) is None or problem.type is ProblemType.CONFLICT:
                if body is None:
                    raise UntrustedAnswer(f"{self._url} answered {path}, which is not signed, with {problem}")
                self._check_signature(headers, status, answer.body, given.get(SIGNATURE_HEADER))
            raise problem
        if status != 200:
            raise UntrustedAnswer(f"{self._url} answered {path} with HTTP {status}")
        if body is not None:
            self._check_signature(headers, status, answer.body, given.get(SIGNATURE_HEADER))
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
    found = passing(error)
    return found is not None and found[0] in _PASSING


def _parse(model: type[_Model], body: bytes) -> _Model:
    return _validated(model.model_validate_json, body, f"the answer is no {model.__name__}")


def _validated(validate: Callable[[bytes], _Value], body: bytes, fault: str) -> _Value:
    """The parsed body. Raises UntrustedAnswer, which begins with `fault`, for a malformed one."""
    try:
        return validate(body)
    except ValidationError as error:
        raise UntrustedAnswer(f"{fault}: {sentence(error)[:_MAX_DESCRIBED]}") from None
