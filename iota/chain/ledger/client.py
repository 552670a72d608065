"""The embedded ledger as a `Chain`, over its HTTP interface."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from yarl import URL

from iota.chain.chain import (
    Block,
    Chain,
    ChainInfo,
    Commitment,
    EpochStatus,
    RegistrationTerms,
    Subnet,
    TxCode,
    TxResult,
    WeightsRow,
)
from iota.chain.errors import BadInput, Incompatible, Rejected, Unavailable
from iota.chain.inputs import check_address, check_commitment, check_netuid, writer
from iota.chain.ledger import messages
from iota.chain.weight_rules import normalise
from iota.console.redaction import without_secrets
from iota.http import AnswerRefused, HttpClient, NoAnswer, NotSent
from iota.identity.http_auth import SIGNATURE_HEADER, sign_request, verify_response
from iota.identity.keys import Hotkey
from iota.protocol.messages import Role
from iota.protocol.problems import ProblemType
from iota.settings.sentences import sentence

_MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Well above the metagraph of a full subnet."""
_MAX_BLOCK = 10**15
"""Above any block; the ledger's paths take 15 digits."""
T = TypeVar("T")


class LedgerChain(Chain):
    """A connection to the ledger at `url`; `hotkey` signs the writes, and None only reads.

    The first call reads the ledger's own key; a later change of it is `Incompatible`. Answers to reads are
    not signed, so the network in between has to be trusted, such as loopback.
    """

    def __init__(self, url: str, hotkey: Hotkey | None = None, *, timeout_s: float = 10.0) -> None:
        parsed = URL(url)
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise BadInput(
                f"{without_secrets(url)!r} is no URL of a ledger: it looks like http://127.0.0.1:9944"
            )
        if timeout_s <= 0:
            raise BadInput(f"timeout_s is above 0, not {timeout_s}")
        self._url = parsed
        self._name = without_secrets(url.rstrip("/"))
        self._hotkey = hotkey
        self._timeout_s = timeout_s
        self._http = HttpClient()
        self._known: messages.LedgerInfo | None = None

    # ---- reads ------------------------------------------------------------------------------------

    async def info(self) -> ChainInfo:
        info = await self._ledger_info()
        return ChainInfo(
            network=self._name,
            backend="ledger",
            version=info.version,
            genesis=info.genesis,
            block_time_s=info.block_time_s,
            netuids=(info.netuid,),
            hashes_trusted=True,
            finality="every block is final at once: one process makes them",
            write_lifetime_blocks=1,
        )

    async def head(self) -> Block:
        return await self._read("/v1/head", messages.BLOCK)

    async def finalized(self) -> Block:
        """The head: this ledger has no reorganisations."""
        return await self.head()

    async def block_hash(self, number: int) -> str:
        if not 0 <= number < _MAX_BLOCK:
            raise BadInput(f"there is no block {number}")
        return (await self._read(f"/v1/blocks/{number}", messages.BLOCK)).hash

    async def subnet(self, netuid: int) -> Subnet:
        return await self._read(f"/v1/subnets/{check_netuid(netuid)}", messages.SUBNET)

    async def uid(self, netuid: int, hotkey: str) -> int | None:
        neuron = (await self.subnet(netuid)).neuron(hotkey)
        return None if neuron is None else neuron.uid

    async def weights(self, netuid: int) -> tuple[WeightsRow, ...]:
        return await self._read(f"/v1/subnets/{check_netuid(netuid)}/weights", messages.WEIGHTS)

    async def commitment(self, netuid: int, hotkey: str, at_block: int | None = None) -> Commitment | None:
        check_address(hotkey)
        if at_block is not None and not 0 <= at_block < _MAX_BLOCK:
            raise BadInput(f"there is no block {at_block}")
        path = f"/v1/subnets/{check_netuid(netuid)}/commitments/{hotkey}"
        query = "" if at_block is None else f"?at_block={at_block}"
        answer = await self._read(path + query, TypeAdapter(messages.CommitmentAnswer))
        return Commitment(answer.block, bytes.fromhex(answer.data)) if answer.found else None

    async def registration_terms(self, netuid: int) -> RegistrationTerms:
        await self.subnet(netuid)
        return RegistrationTerms(open=True, cost_tao=0.0, shielded=False, needs_coldkey=False)

    async def balance(self, address: str) -> float:
        """0: this ledger has no TAO."""
        check_address(address)
        return 0.0

    async def epoch_status(self, netuid: int) -> EpochStatus:
        return await self._read(f"/v1/subnets/{check_netuid(netuid)}/epoch", messages.EPOCH)

    async def wait_epoch(
        self, netuid: int, *, after: int | None = None, timeout_s: float | None = None
    ) -> EpochStatus:
        status = await self.epoch_status(netuid)
        target = status.index if after is None else after
        if timeout_s is None:
            timeout_s = 2 * status.tempo * (await self._ledger_info()).block_time_s + self._timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                while status.index <= target:
                    status = await self._read(
                        f"/v1/subnets/{check_netuid(netuid)}/epoch?after={target}",
                        messages.EPOCH,
                        wait_s=messages.MAX_WAIT_S,
                    )
        except TimeoutError:
            raise Unavailable(f"subnet {netuid} ran no epoch after {target} in {timeout_s:g} s") from None
        return status

    # ---- writes -----------------------------------------------------------------------------------

    async def register(
        self, netuid: int, role: Role = Role.MINER, *, max_cost_tao: float | None = None
    ) -> TxResult:
        """Free of charge, so that `max_cost_tao` has no effect."""
        return await self._write(
            "/v1/register", messages.RegisterRequest(netuid=check_netuid(netuid), role=role)
        )

    async def serve(self, netuid: int, ip: str, port: int) -> TxResult:
        try:
            body = messages.ServeRequest(netuid=check_netuid(netuid), ip=ip, port=port)
        except ValidationError:
            raise BadInput(f"{ip!r} port {port!r} is no address to serve at") from None
        return await self._write("/v1/serve", body)

    async def commit(self, netuid: int, data: bytes) -> TxResult:
        check_commitment(data)
        return await self._write(
            "/v1/commit", messages.CommitRequest(netuid=check_netuid(netuid), data=data.hex())
        )

    async def set_weights(self, netuid: int, weights: Mapping[int, float], version_key: int = 0) -> TxResult:
        normal = normalise(weights)
        try:
            body = messages.WeightsRequest(
                netuid=check_netuid(netuid), weights=normal, version_key=version_key
            )
        except ValidationError as error:
            raise BadInput(f"these weights cannot be sent: {sentence(error)}") from None
        return await self._write("/v1/weights", body)

    # ---- the connection ---------------------------------------------------------------------------

    async def close(self) -> None:
        await self._http.close()

    async def _ledger_info(self) -> messages.LedgerInfo:
        if self._known is None:
            info = await self._get("/v1/info", TypeAdapter(messages.LedgerInfo))
            if info.version != messages.LEDGER_VERSION:
                raise Incompatible(
                    f"the ledger at {self._name} speaks {info.version}, and this version "
                    f"{messages.LEDGER_VERSION}: update the older of the two"
                )
            self._known = info
        return self._known

    async def _read(self, target: str, adapter: TypeAdapter[T], wait_s: float = 0.0) -> T:
        await self._ledger_info()
        return await self._get(target, adapter, wait_s)

    async def _get(self, target: str, adapter: TypeAdapter[T], wait_s: float = 0.0) -> T:
        status, _, content = await self._request("GET", target, b"", {}, self._timeout_s + wait_s)
        if status != 200:
            raise self._failure(status, content)
        try:
            return adapter.validate_json(content)
        except ValidationError:
            raise self._malformed() from None

    async def _write(self, path: str, message: messages.Message) -> TxResult:
        hotkey = writer(self._hotkey)
        ledger = (await self._ledger_info()).hotkey
        body = message.model_dump_json().encode()
        target = (self._url / path.removeprefix("/")).raw_path
        headers = sign_request(hotkey, "POST", target, body, ledger)
        signed = headers["X-Bittensor-Signature"], int(headers["X-Bittensor-Nonce"])
        status, proof, content = await self._request("POST", path, body, headers, self._timeout_s)
        if not verify_response(ledger, signed[1], status, content, proof, request_signature=signed[0]):
            # The ledger does not sign a refusal of a request whose sender it could not verify.
            if proof is None and status >= 400:
                failure = self._failure(status, content)
                # A proxy may have sent this answer after passing the write on.
                failure.fate_unknown = isinstance(failure, Incompatible | Unavailable)
                raise failure
            raise Unavailable("the answer is not signed by the ledger", fate_unknown=True)
        try:
            result = messages.RESULT.validate_json(content)
        except ValidationError:
            raise self._malformed(fate_unknown=True) from None
        if result.ok != (status == 200) or result.ok != (result.code is TxCode.OK):
            raise Incompatible(
                f"the ledger at {self._name} contradicts itself: status {status}, {result.code}",
                fate_unknown=True,
            )
        return result

    async def _request(
        self, method: str, target: str, body: bytes, headers: Mapping[str, str], timeout_s: float
    ) -> tuple[int, str | None, bytes]:
        """(status, signature header, body) of one HTTP request; `target` is relative to the base URL."""
        path, _, query = target.partition("?")
        url = (self._url / path.removeprefix("/")).with_query(query)
        is_write = method == "POST"
        try:
            answer = await self._http.fetch(
                method, url, max_bytes=_MAX_ANSWER_BYTES, timeout_s=timeout_s, headers=headers, body=body
            )
        except NotSent as error:
            raise Unavailable(f"no ledger answers at {self._name} ({error}): is it running?") from None
        except NoAnswer as error:
            raise Unavailable(
                f"the ledger at {self._name} gave no answer: {error}", fate_unknown=is_write
            ) from None
        except AnswerRefused as error:
            raise Incompatible(f"the answer of {self._name}: {error}", fate_unknown=is_write) from None
        return answer.status, answer.headers.get(SIGNATURE_HEADER), answer.body

    def _failure(self, status: int, content: bytes) -> BadInput | Incompatible | Rejected | Unavailable:
        """The error for an answer with a problem document."""
        try:
            problem = TypeAdapter(dict[str, str | int]).validate_json(content)
            kind, detail = str(problem["type"]), str(problem["detail"])
        except (ValidationError, KeyError):
            return Incompatible(f"{self._name} answered {status} in a form that is no ledger's")
        if kind == ProblemType.WRONG_RECEIVER:
            self._known = None
            return Incompatible(f"another ledger than before answers at {self._name}: {detail}")
        if status >= 500 or status == 408:
            return Unavailable(detail)
        if kind in ("bad-input", "malformed"):
            return BadInput(detail)
        return Rejected(f"{kind}: {detail}")

    def _malformed(self, *, fate_unknown: bool = False) -> Incompatible:
        return Incompatible(
            f"the answer of {self._name} is not that of {messages.LEDGER_VERSION}: update the older side",
            fate_unknown=fate_unknown,
        )
