"""Collects facts from chain, orchestrator, wallet and machine, concurrently and with one deadline.

A source that does not answer in time gives `Unknown`, and delays no other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar
from urllib.parse import urlsplit

from iota.chain import Chain, ChainError, Incompatible, Subnet, open_chain
from iota.client.orchestrator import UntrustedAnswer, new_nonce, parse_run
from iota.console.command_flags import chain_flags, wallet_flags
from iota.console.redaction import one_line, without_secrets
from iota.doctor.facts import ChainFacts, Facts, OrchestratorFacts, Unknown, WalletFiles
from iota.doctor.machine import graphics_cards, machine, software
from iota.doctor.wallet import wallet_files
from iota.http import Answer, AnswerRefused, BodyTooLarge, HttpClient, NoAnswer, is_loopback, read_bounded
from iota.identity.certificates import is_signed
from iota.planning import all_needs
from iota.protocol.member_records import MemberRecord
from iota.protocol.messages import Role
from iota.settings import MinerSettings, ValidatorSettings
from iota.spec import RunSpec

DEADLINE_S: Final = 7.0
"""Seconds for all sources together; the whole command takes about a second more."""
_CLOSE_S: Final = 0.5
_MAX_RUN_BYTES: Final = 1 << 20
"""Of the run, and of a member's record."""
_OK: Final = 200
T = TypeVar("T")
Clock = Callable[[], float]


async def gather(
    settings: MinerSettings | ValidatorSettings,
    role: Role,
    spec: RunSpec | None = None,
    *,
    ask_chain: bool = True,
    deadline_s: float = DEADLINE_S,
    now: Clock = time.time,
) -> Facts:
    """The facts that `deadline_s` seconds suffice for; `now` is this machine's clock (Unix seconds).

    `spec` is that of the run; without one it is the orchestrator's. Without `ask_chain` the chain's facts
    are unknown.
    """
    end = asyncio.get_running_loop().time() + deadline_s
    wallet = wallet_files(settings)
    worker = None if wallet.certificate is None else wallet.certificate.worker
    chain, orchestrator, revoked, cards = await asyncio.gather(
        _chain(settings, wallet, end, now) if ask_chain else _not_asked(settings),
        answer_to(_orchestrator(settings.orchestrator, settings.orchestrator_hotkey, now), end),
        answer_to(_revoked(settings.orchestrator, worker), end),
        answer_to(graphics_cards(), end),
    )
    compiled = bool(cards) and not isinstance(cards, Unknown)
    if spec is None and isinstance(orchestrator, OrchestratorFacts):
        spec = orchestrator.spec
    return Facts(
        role=role,
        wallet_flags=wallet_flags(settings),
        chain_flags=chain_flags(settings),
        netuid=settings.netuid,
        orchestrator_endpoint=without_secrets(settings.orchestrator),
        needs=() if spec is None else tuple(all_needs(spec, compiled=compiled)),
        software=software(),
        wallet=wallet,
        chain=chain,
        orchestrator=orchestrator,
        machine=machine(settings.data_dir, cards),
        revoked=revoked is True,
    )


async def answer_to(call: Awaitable[T], end: float) -> T | Unknown:
    """The result, or Unknown with a reason: for an error, and when the event loop's clock reaches `end`."""
    try:
        async with asyncio.timeout_at(end):
            return await call
    except TimeoutError:
        return Unknown("no answer in time")
    except NoAnswer as error:
        return Unknown(f"no connection ({error})")
    except Incompatible as error:
        return Unknown(without_secrets(str(error)), drifted=True)
    except (ChainError, AnswerRefused, OSError, ValueError) as error:
        return Unknown(one_line(str(error)) or type(error).__name__)


async def _chain(
    settings: MinerSettings | ValidatorSettings, wallet: WalletFiles, end: float, now: Clock
) -> ChainFacts:
    endpoint = without_secrets(settings.chain)
    stack = AsyncExitStack()
    try:
        chain = await answer_to(_opened(stack, settings.chain), end)
        if isinstance(chain, Unknown):
            return _unreachable(endpoint, chain)
        info = await answer_to(chain.info(), end)
        if isinstance(info, Unknown):
            return _unreachable(endpoint, info)
        begun = time.monotonic()
        head = await answer_to(chain.head(), end)
        latency_s = None if isinstance(head, Unknown) else time.monotonic() - begun
        head_age_s = None if isinstance(head, Unknown) else now() - head.time
        subnet, terms = await asyncio.gather(
            answer_to(chain.subnet(settings.netuid), end),
            answer_to(chain.registration_terms(settings.netuid), end),
        )
        coldkey = _owner(subnet, wallet.hotkey) or wallet.coldkey
        balance = None if coldkey is None else await answer_to(chain.balance(coldkey), end)
        return ChainFacts(endpoint, info, latency_s, head, head_age_s, subnet, terms, coldkey, balance)
    finally:
        # A connection that hangs while it closes ends with the process.
        await answer_to(stack.aclose(), asyncio.get_running_loop().time() + _CLOSE_S)


def _unreachable(endpoint: str, why: Unknown) -> ChainFacts:
    return ChainFacts(endpoint, why, None, why, None, why, why, None, None)


async def _not_asked(settings: MinerSettings | ValidatorSettings) -> ChainFacts:
    facts = _unreachable(without_secrets(settings.chain), Unknown("not asked"))
    return replace(facts, asked=False)


async def _opened(stack: AsyncExitStack, network: str) -> Chain:
    """A connection that `stack` closes. A coroutine, so that `answer_to` also catches a refused `network`."""
    return await stack.enter_async_context(open_chain(network, timeout_s=DEADLINE_S))


def _owner(subnet: Subnet | Unknown, hotkey: str | None) -> str | None:
    neuron = None if isinstance(subnet, Unknown) or hotkey is None else subnet.neuron(hotkey)
    return None if neuron is None else neuron.coldkey


async def _orchestrator(url: str, hotkey: str | None, now: Clock) -> OrchestratorFacts:
    """What answers at `url`. `hotkey` must have signed it, if one is given."""
    nonce, begun = new_nonce(), time.monotonic()
    try:
        async with HttpClient() as http, http.open("GET", f"{url}/v1/run?nonce={nonce}") as answer:
            latency_s = time.monotonic() - begun
            ahead_s = _ahead(answer.headers.get("Date"), now())
            body = await read_bounded(answer, _MAX_RUN_BYTES)
    except BodyTooLarge:
        raise ValueError("it sends more than an orchestrator would: is it the right URL?") from None
    try:
        run = parse_run(nonce, Answer(answer.status, answer.headers, body))
    except UntrustedAnswer as error:
        raise ValueError(
            f"it answers {answer.status}, and not as an orchestrator of this version ({error})"
        ) from None
    if hotkey not in (None, run.orchestrator):
        raise ValueError(f"it is run by {run.orchestrator}, and --orchestrator-hotkey demands {hotkey}")
    return OrchestratorFacts(
        endpoint=without_secrets(url),
        run=run.run,
        spec=run.spec,
        epoch=run.epoch,
        versions=run.versions,
        latency_s=latency_s,
        clock_ahead_s=ahead_s,
        same_machine=is_loopback(urlsplit(url).hostname),
    )


async def _revoked(url: str, worker: str | None) -> bool:
    """Whether the orchestrator has the owner's revocation of this worker, which must have joined once."""
    if worker is None:
        return False
    async with HttpClient() as http:
        path = f"{url}/v1/members/{worker}"
        answer = await http.fetch("GET", path, max_bytes=_MAX_RUN_BYTES, timeout_s=DEADLINE_S)
    if answer.status != _OK:
        return False
    record = MemberRecord.model_validate_json(answer.body)
    return record.hotkey == worker and record.revocation is not None and is_signed(record.revocation)


def _ahead(date: str | None, now: float) -> float | None:
    """This clock minus that of an HTTP Date, in seconds; half a second corrects for its truncation."""
    if date is None:
        return None
    try:
        return now - (parsedate_to_datetime(date).timestamp() + 0.5)
    except (ValueError, OverflowError):
        return None
