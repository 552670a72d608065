"""What a chain can do to weights that are due: each fault, how it comes and goes, and what is to be seen.

`fault` and `seen` stand in the table of `docs/chain.md` too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.chain_fault_bench import (
    BLOCK_S,
    FATE_UNKNOWN,
    READ_S,
    VALIDATOR,
    WRITE_S,
    FaultBench,
    Hook,
)
from tests.support.subtensor.faults import Kind
from tests.support.subtensor.metadata import RuntimeKind

SUBMIT: Final = "author_submitAndWatchExtrinsic"
HOUR: Final = 3600 // BLOCK_S
UNAVAILABLE: Final = "Unavailable"
NO_ANSWER: Final = "did not answer within"
NOT_USABLE: Final = "no usable answer from"
NOT_KNOWN: Final = "it is not known whether the chain took this write"
LIMITED: Final = "which limits its clients"


@dataclass(frozen=True)
class Case:
    name: str
    fault: str
    """Its row in the docs."""
    seen: str
    """Of the line in the log by which the operator knows it."""
    kinds: frozenset[str]
    """All the errors that calls end with while it lasts: names of `iota.chain.errors`, or FATE_UNKNOWN."""
    begin: Hook
    end: Hook | None = None
    """How it is cleared, beside the faults of the wire and the course of writes, which always are."""
    states: tuple[str, ...] = ("in force",)
    """What becomes of the plans made since it began: so many writes are begun, and no more."""
    blocks: int = 3
    """How long it lasts."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the chain."""


# ---- how faults come and go -----------------------------------------------------------------------


def wire(kind: Kind, method: str | None = None, *, seconds: float = 0.0, times: int | None = None) -> Hook:
    async def begin(b: FaultBench) -> None:
        b.node.faults.set(kind, method, seconds=seconds, times=times)

    return begin


def pooled(hook: Hook) -> Hook:
    """The fault meets the write in the pool."""

    async def begin(b: FaultBench) -> None:
        b.when_pooled = hook

    return begin


def looked(hook: Hook) -> Hook:
    """The fault comes after the look at the chain that the write follows from."""

    async def begin(b: FaultBench) -> None:
        b.when_looked = hook

    return begin


async def refuse_handshakes(b: FaultBench) -> None:
    b.node.faults.set(Kind.HANDSHAKE_429)
    b.node.drop()


async def be_silent(b: FaultBench) -> None:
    b.node.faults.set(Kind.HANG)


async def keep_waiting(b: FaultBench) -> None:
    b.node.faults.set(Kind.SLOW, SUBMIT, seconds=WRITE_S + 0.5, times=1)
    b.when_pooled = FaultBench.land


async def late_submission(b: FaultBench) -> None:
    await b.node.pooled()


async def go_away(b: FaultBench) -> None:
    await b.node.refuse()


async def come_back(b: FaultBench) -> None:
    await b.node.listen()


async def restart(b: FaultBench) -> None:
    await b.node.restart()


async def put_back(b: FaultBench) -> None:
    await b.advance(1)
    await b.node.reorganise(1)


async def take_away(b: FaultBench) -> None:
    await b.advance(1)
    b.lost = await b.node.reorganise(1, lose=True)


async def bring_back(b: FaultBench) -> None:
    for extrinsic in b.lost:
        b.node.submit(extrinsic)


async def raise_rate_limit(b: FaultBench) -> None:
    b.model.edit_subnet("WeightsSetRateLimit", 1000)


async def lower_rate_limit(b: FaultBench) -> None:
    b.model.edit_subnet("WeightsSetRateLimit", 5)


async def take_permit(b: FaultBench) -> None:
    b.model.stake(VALIDATOR.ss58, 0)
    b.model.permit(VALIDATOR.ss58, False)


async def give_permit(b: FaultBench) -> None:
    b.model.stake(VALIDATOR.ss58, 1000)
    b.model.permit(VALIDATOR.ss58)


async def land_and_take_permit(b: FaultBench) -> None:
    await b.land()
    await take_permit(b)


def upgrade(kind: RuntimeKind) -> Hook:
    """A client that is connected looks for another runtime every 12 s only."""

    async def begin(b: FaultBench) -> None:
        await b.node.upgrade(kind)

    return begin


def restart_with(kind: RuntimeKind) -> Hook:
    async def begin(b: FaultBench) -> None:
        await b.node.refuse()
        await b.node.upgrade(kind)
        await b.go(1)
        await b.node.listen()

    return begin


async def drop_from_pool(b: FaultBench) -> None:
    b.model.pool.waiting.clear()
    await b.advance(1)


async def stall_finality(b: FaultBench) -> None:
    b.model.finality_stalled = True


async def resume_finality(b: FaultBench) -> None:
    b.model.finality_stalled = False


# ---- the faults -----------------------------------------------------------------------------------

_HANGS, _SLOW = "The node takes requests and does not answer", "Answers come too late"
_BREAKS, _RESTARTS = "The connection breaks", "The node restarts"
_REORGANISED = "A reorganisation takes the block with the weights away"
_RATE, _PROVIDER = "The chain's rate limit", "The node's provider limits requests"
_PERMIT, _DRIFT = "No validator permit", "The runtime and the SDK do not fit"
_UPGRADE = "The runtime is upgraded just now"
_MEMPOOL, _FINALITY, _OUTAGE = "The mempool is full", "Finality stalls", "An outage of an hour"


def _case(name: str, fault: str, seen: str, kinds: set[str], begin: Hook, **more: Any) -> Case:
    return Case(name, fault, seen, frozenset(kinds), begin, **more)


LOST: Final = ("lost", "in force")
TWO: Final = ("in force", "in force")
"""Of the tempo in which it began, and of that in which it was over."""
CASES: Final = (
    _case("hang", _HANGS, NO_ANSWER, {UNAVAILABLE}, wire(Kind.HANG)),
    _case("hang at the write", _HANGS, NO_ANSWER, {FATE_UNKNOWN}, wire(Kind.HANG, SUBMIT), states=LOST),
    _case(
        "hang after the write",
        _HANGS,
        NO_ANSWER,
        {FATE_UNKNOWN, UNAVAILABLE},
        pooled(be_silent),
        blocks=2,
    ),
    _case("slow", _SLOW, NO_ANSWER, {UNAVAILABLE}, wire(Kind.SLOW, seconds=1.2 * READ_S), blocks=1),
    _case("slow write", _SLOW, NO_ANSWER, {FATE_UNKNOWN}, keep_waiting, end=late_submission, blocks=1),
    _case("drop", _BREAKS, NO_ANSWER, {UNAVAILABLE}, wire(Kind.DROP), blocks=1),
    _case("drop before the write", _BREAKS, NOT_KNOWN, {FATE_UNKNOWN}, wire(Kind.DROP, SUBMIT), states=LOST),
    _case("drop after the write", _BREAKS, NOT_KNOWN, {FATE_UNKNOWN}, wire(Kind.DROP_AFTER, SUBMIT)),
    _case("restart", _RESTARTS, NOT_USABLE, {UNAVAILABLE}, go_away, end=come_back),
    _case("restart in the write", _RESTARTS, NOT_KNOWN, {FATE_UNKNOWN}, pooled(restart)),
    _case("reorganised and put back", _REORGANISED, NOT_KNOWN, {FATE_UNKNOWN}, pooled(put_back)),
    _case("reorganised and lost", _REORGANISED, NOT_KNOWN, {FATE_UNKNOWN}, pooled(take_away), states=LOST),
    _case(
        "reorganised and back late",
        _REORGANISED,
        NOT_KNOWN,
        {FATE_UNKNOWN},
        pooled(take_away),
        end=bring_back,
        blocks=25,
    ),
    _case(
        "rate limit",
        _RATE,
        "SettingWeightsTooFast",
        {"RateLimited"},
        looked(raise_rate_limit),
        end=lower_rate_limit,
        states=("refused", "in force"),
    ),
    _case("HTTP 429", _PROVIDER, NOT_USABLE, {UNAVAILABLE}, refuse_handshakes),
    _case("error -32005", _PROVIDER, LIMITED, {UNAVAILABLE}, wire(Kind.RATE_LIMIT)),
    _case("policy close", _PROVIDER, LIMITED, {UNAVAILABLE}, wire(Kind.POLICY_CLOSE)),
    _case(
        "error -32005 at the write",
        _PROVIDER,
        NOT_KNOWN,
        {FATE_UNKNOWN},
        wire(Kind.RATE_LIMIT, SUBMIT),
        states=LOST,
    ),
    _case("no permit", _PERMIT, "has no validator permit", set(), take_permit, end=give_permit),
    _case(
        "permit lost before the write",
        _PERMIT,
        "NeuronNoValidatorPermit",
        {"Rejected"},
        looked(take_permit),
        end=give_permit,
        states=("refused", "in force"),
    ),
    _case(
        "permit lost before the reveal",
        _PERMIT,
        "has lost its validator permit",
        set(),
        pooled(land_and_take_permit),
        end=give_permit,
        states=("not in force", "in force", "in force"),
        blocks=130,
        settings={"commit_reveal": True, "tempo": 20},
    ),
    _case(
        "item absent",
        _DRIFT,
        "do not fit",
        {"Incompatible"},
        upgrade(RuntimeKind.ITEM_ABSENT),
        end=restart_with(RuntimeKind.FITTING),
        states=("unsent", "unsent", "in force"),
    ),
    _case(
        "call changed",
        _DRIFT,
        "do not fit",
        {UNAVAILABLE, "Incompatible"},
        restart_with(RuntimeKind.CALL_CHANGED),
        end=restart_with(RuntimeKind.FITTING),
        states=("unsent", "unsent", "in force"),
    ),
    _case(
        "wrong spec version",
        _UPGRADE,
        "refuses the signature",
        {"Incompatible"},
        upgrade(RuntimeKind.FITTING),
        states=("unsent", "in force"),
    ),
    _case(
        "upgrade in the middle",
        _UPGRADE,
        "refuses the signature",
        {"Incompatible"},
        looked(upgrade(RuntimeKind.FITTING)),
        states=("unsent", "in force"),
    ),
    _case(
        "full mempool",
        _MEMPOOL,
        "its pool of transactions is full",
        {UNAVAILABLE},
        wire(Kind.FULL_MEMPOOL),
        states=("unsent", "unsent", "in force"),
    ),
    _case("out of the mempool", _MEMPOOL, NOT_KNOWN, {FATE_UNKNOWN}, pooled(drop_from_pool), states=LOST),
    _case("no finality", _FINALITY, NO_ANSWER, {FATE_UNKNOWN}, stall_finality, end=resume_finality),
    _case(
        "no finality for an hour",
        _FINALITY,
        NO_ANSWER,
        {FATE_UNKNOWN},
        stall_finality,
        end=resume_finality,
        states=TWO,
        blocks=HOUR,
    ),
    _case("outage", _OUTAGE, NOT_USABLE, {UNAVAILABLE}, go_away, end=come_back, blocks=HOUR),
    _case(
        "outage from the write on",
        _OUTAGE,
        NOT_KNOWN,
        {FATE_UNKNOWN, UNAVAILABLE},
        pooled(go_away),
        end=come_back,
        states=TWO,
        blocks=HOUR,
    ),
)
"""Every fault while weights are due. The tests of `test_chain_faults` go through them."""
