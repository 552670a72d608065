"""What goes wrong on a public chain, under the real SDK over a loopback node.

Each fault ends within its deadline, as the right error; nothing is submitted twice; and what comes after
works without opening the chain again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import bittensor as bt
import pytest
from bittensor._transport.errors import StateDiscardedError, SubstrateRequestException
from websockets.asyncio.server import ServerConnection, serve

from iota.chain import BadInput, ChainError, Incompatible, TxCode, Unavailable
from iota.chain.bittensor.client import BittensorChain
from iota.chain.bittensor.faults import Node, fault, outcome
from iota.chain.bittensor.transport import MAX_FRAME_BYTES
from iota.chain.bittensor.wallet import SignedAlready
from tests.support.bittensor_chains import (
    MINER,
    NETUID,
    READ_S,
    VALIDATOR,
    calls_of,
    in_memory,
    over_node,
    subtensor,
    until,
)
from tests.support.subtensor.faults import Kind
from tests.support.subtensor.fixtures import sdk_home
from tests.support.subtensor.memory import MemorySubstrate
from tests.support.subtensor.metadata import RuntimeKind
from tests.support.subtensor.node import LoopbackNode

__all__ = ["sdk_home"]

SLACK_S = 1.5
"""What a deadline may be overrun by on a busy machine: the clean-up after it."""
SUBMIT = "author_submitAndWatchExtrinsic"
WEIGHTS = {2: 1.0, 0: 0.5}
AT = Node("ws://host", 461)


@pytest.fixture
async def node(sdk_home: Path) -> AsyncIterator[LoopbackNode]:
    async with LoopbackNode(subtensor(), instant=True) as node:
        yield node


async def failing(call: Awaitable[Any], deadline_s: float) -> ChainError:
    """The error that a call ends with, in time."""
    start = time.monotonic()
    with pytest.raises(ChainError) as caught:
        await call
    assert time.monotonic() - start < deadline_s + SLACK_S
    return caught.value


def unavailable(error: ChainError) -> bool:
    """Whether the write's fate is unknown."""
    assert isinstance(error, Unavailable), error
    return error.fate_unknown


# ---- reads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("warm", [True, False], ids=["open", "opening"])
async def test_a_hanging_node_ends_a_read_in_time_and_is_found_again(node: LoopbackNode, warm: bool) -> None:
    async with over_node(node) as chain:
        if warm:
            await chain.head()
        node.faults.set(Kind.HANG)
        for _ in range(2):
            error = await failing(chain.subnet(NETUID), READ_S)
            assert not unavailable(error)
            assert "did not answer within 1 s" in str(error)
        node.faults.clear()
        assert (await chain.subnet(NETUID)).netuid == NETUID


async def test_no_connection_and_no_task_is_left_of_what_hung(node: LoopbackNode) -> None:
    before = asyncio.all_tasks()
    for warm in (True, False):
        chain = over_node(node, MINER, write_s=READ_S)
        if warm:
            await chain.head()
        node.faults.set(Kind.HANG)
        await failing(chain.head(), READ_S)
        await failing(chain.commit(NETUID, b"x"), READ_S)
        node.faults.clear()
        await chain.close()
    await until(lambda: not node._connections)
    await until(lambda: not (asyncio.all_tasks() - before))


async def test_a_read_of_a_caller_that_gives_up_leaves_nothing_behind(node: LoopbackNode) -> None:
    async with over_node(node) as chain:
        await chain.head()
        node.faults.set(Kind.HANG)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await chain.subnet(NETUID)
        node.faults.clear()
        assert (await chain.head()).number == node.chain.head.number


async def test_a_dropped_connection_is_a_matter_of_one_call(node: LoopbackNode) -> None:
    async with over_node(node) as chain:
        await chain.head()
        node.drop()
        assert (await chain.head()).number == node.chain.head.number
        await node.refuse()
        assert not unavailable(await failing(chain.head(), READ_S))
        await node.listen()
        assert (await chain.head()).number == node.chain.head.number


async def test_a_node_that_is_not_there_is_told_of_at_once(sdk_home: Path) -> None:
    async with BittensorChain("ws://127.0.0.1:9", timeout_s=20) as chain:
        error = await failing(chain.head(), 2)
        assert not unavailable(error)
        assert "ws://127.0.0.1:9" in str(error)


@pytest.mark.parametrize("kind", [Kind.RATE_LIMIT, Kind.POLICY_CLOSE, Kind.HANDSHAKE_429])
async def test_an_endpoint_that_limits_us_is_unavailable_until_it_stops(
    node: LoopbackNode, kind: Kind
) -> None:
    async with over_node(node) as chain:
        await chain.close()
        node.faults.set(kind)
        assert not unavailable(await failing(chain.head(), READ_S))
        node.faults.clear()
        assert (await chain.head()).number == node.chain.head.number


@pytest.mark.parametrize(
    "frame",
    [
        "5",
        "[" * 100_000,
        "{",
        '{"id": 1, "result": {"specVersion": []}}',
        b"\xff\xfe",
        " " * (MAX_FRAME_BYTES + 1),
    ],
    ids=["number", "nested", "cut off", "senseless", "no text", "large"],
)
async def test_an_endpoint_that_is_no_node_of_a_chain_is_an_error_in_time(
    sdk_home: Path, frame: str | bytes
) -> None:
    async def answer(socket: ServerConnection) -> None:
        async for _ in socket:
            await socket.send(frame)

    before = asyncio.all_tasks()
    async with serve(answer, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with BittensorChain(f"ws://127.0.0.1:{port}", timeout_s=READ_S) as chain:
            error = await failing(chain.head(), READ_S)
            assert isinstance(error, Unavailable | Incompatible)
        await until(lambda: not server.connections)
    await until(lambda: not (asyncio.all_tasks() - before))


async def test_state_that_the_node_has_dropped_needs_an_archive() -> None:
    error = bt.ChainError("State discarded for 0x12")
    error.__cause__ = StateDiscardedError("0x12")
    told = fault(error, AT, sent=False)
    assert isinstance(told, Unavailable)
    assert "archive" in str(told)


# ---- runtimes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RuntimeKind.ITEM_ABSENT, RuntimeKind.CALL_CHANGED])
async def test_a_runtime_that_the_sdk_does_not_fit_is_incompatible_with_both_versions(
    sdk_home: Path, kind: RuntimeKind
) -> None:
    model = subtensor()
    async with (
        LoopbackNode(model, instant=True, kind=kind) as node,
        over_node(node, VALIDATOR) as chain,
    ):
        error = await failing(chain.set_weights(NETUID, WEIGHTS), READ_S)
        assert isinstance(error, Incompatible)
        assert f"runtime {node.runtime.spec_version}" in str(error)
        assert f"bittensor {bt.__version__}" in str(error)
        assert "update" in str(error)
        assert calls_of(model, VALIDATOR.ss58) == []
        assert (await chain.subnet(NETUID)).netuid == NETUID


async def test_a_runtime_that_changes_under_us_costs_one_write_at_most(node: LoopbackNode) -> None:
    async with over_node(node, VALIDATOR) as chain:
        await chain.subnet(NETUID)
        await node.upgrade()
        error = await failing(chain.set_weights(NETUID, WEIGHTS), READ_S)
        assert isinstance(error, Incompatible)
        assert "newer runtime" in str(error)
        assert (await chain.set_weights(NETUID, WEIGHTS)).ok
        assert calls_of(node.chain, VALIDATOR.ss58) == ["set_mechanism_weights"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), TypeError("x"), AssertionError("x")])
def test_whatever_the_codec_trips_over_is_drift(error: Exception) -> None:
    told = fault(error, AT, sent=False)
    assert isinstance(told, Incompatible)
    assert "461" in str(told)


# ---- writes ---------------------------------------------------------------------------------------


async def test_a_write_whose_answer_hangs_is_open_and_was_sent_once(node: LoopbackNode) -> None:
    async with over_node(node, VALIDATOR, write_s=READ_S) as chain:
        await chain.head()
        node.faults.set(Kind.HANG, SUBMIT)
        assert unavailable(await failing(chain.set_weights(NETUID, WEIGHTS), READ_S))
        node.faults.clear()
        await node.advance(3)
        assert calls_of(node.chain, VALIDATOR.ss58) == []
        assert (await chain.commit(NETUID, b"works again")).ok


async def test_a_write_that_hangs_before_it_is_signed_never_leaves(node: LoopbackNode) -> None:
    async with over_node(node, VALIDATOR, write_s=READ_S) as chain:
        await chain.head()
        node.faults.set(Kind.HANG, "account_nextIndex")
        assert not unavailable(await failing(chain.set_weights(NETUID, WEIGHTS), READ_S))
        node.faults.clear()
        await node.advance(3)
        assert calls_of(node.chain, VALIDATOR.ss58) == []


@pytest.mark.parametrize("kind", [Kind.DROP, Kind.DROP_AFTER])
async def test_a_connection_lost_with_the_write_leaves_its_fate_open_and_sends_it_once(
    node: LoopbackNode, kind: Kind
) -> None:
    async with over_node(node, VALIDATOR) as chain:
        await chain.head()
        lost = node.faults.set(kind, SUBMIT, times=1)
        assert unavailable(await failing(chain.set_weights(NETUID, WEIGHTS), 5))
        await node.advance(4)
        landed = calls_of(node.chain, VALIDATOR.ss58)
        assert landed == (["set_mechanism_weights"] if kind is Kind.DROP_AFTER else [])
        assert lost.met == 1
        rows = await chain.weights(NETUID)
        assert [dict(row.weights) for row in rows] == ([{0: 32768, 2: 65535}] if landed else [])


async def test_a_node_that_restarts_while_a_write_is_watched_leaves_its_fate_open(sdk_home: Path) -> None:
    model = subtensor()
    async with LoopbackNode(model) as node, over_node(node, VALIDATOR) as chain:
        writing = asyncio.create_task(chain.set_weights(NETUID, WEIGHTS))
        await node.pooled()
        await node.restart()
        assert unavailable(await failing(writing, 5))
        await node.advance(4)
        assert calls_of(model, VALIDATOR.ss58) == ["set_mechanism_weights"]
        (row,) = await chain.weights(NETUID)
        assert row.hotkey == VALIDATOR.ss58


async def test_a_block_replaced_under_a_write_leaves_its_fate_open(sdk_home: Path) -> None:
    model = subtensor()
    async with LoopbackNode(model) as node, over_node(node, VALIDATOR) as chain:
        writing = asyncio.create_task(chain.set_weights(NETUID, WEIGHTS))
        await node.pooled()
        await node.advance(1)
        await node.reorganise(1)
        assert unavailable(await failing(writing, 5))
        await node.advance(4)
        assert calls_of(model, VALIDATOR.ss58) == ["set_mechanism_weights"]


async def test_finality_that_stalls_leaves_a_write_s_fate_open(node: LoopbackNode) -> None:
    node.chain.finality_stalled = True
    async with over_node(node, VALIDATOR, write_s=READ_S) as chain:
        assert unavailable(await failing(chain.set_weights(NETUID, WEIGHTS), READ_S))


async def test_a_full_pool_is_no_judgement_and_the_next_try_passes(node: LoopbackNode) -> None:
    async with over_node(node, VALIDATOR) as chain:
        node.faults.set(Kind.FULL_MEMPOOL)
        error = await failing(chain.set_weights(NETUID, WEIGHTS), READ_S)
        assert not unavailable(error)
        assert "pool" in str(error)
        node.faults.clear()
        assert (await chain.set_weights(NETUID, WEIGHTS)).ok


async def test_a_hotkey_whose_coldkey_cannot_pay_is_refused(sdk_home: Path) -> None:
    model = subtensor(hotkey_fees=True)
    async with LoopbackNode(model, instant=True) as node, over_node(node, MINER) as chain:
        paid = (await chain.commit(NETUID, b"x")).check()
        assert paid.fee_tao > 0
        model.edit("System", "Account", (model.value("SubtensorModule", "Owner", (MINER.ss58,)),), None)
        result = await chain.commit(NETUID, b"y")
        assert (result.ok, result.code, result.chain_error) == (False, TxCode.INSUFFICIENT_BALANCE, "Payment")


async def test_a_lost_answer_leaves_a_write_s_fate_open_in_memory_too() -> None:
    model = subtensor()
    async with in_memory(model, VALIDATOR) as chain:
        substrate: Any = await chain._connection.run(_substrate, READ_S)
        substrate.lose_answer_next()
        assert unavailable(await failing(chain.set_weights(NETUID, WEIGHTS), READ_S))
        assert len(substrate.submitted) == 1


async def _substrate(session: Any) -> Any:
    return session.substrate


@pytest.mark.parametrize(
    ("message", "name", "fate_unknown"),
    [
        ("Extrinsic retracted: {}", "Retracted", True),
        ("Extrinsic usurped: {}", "Usurped", True),
        ("Transaction Already Imported", "AlreadyImported", True),
        ("Connection lost while waiting for a subscription response", None, True),
        ("Immediately Dropped: the pool is full", None, False),
        ("Transaction is temporarily banned", None, False),
        ("Transaction is outdated", "Stale", False),
        ("Priority is too low: (1 vs 2)", "PriorityTooLow", False),
    ],
)
def test_what_the_sdk_calls_a_failed_write_may_be_open(
    message: str, name: str | None, fate_unknown: bool
) -> None:
    result = bt.ExtrinsicResult(success=False, message=message, error=bt.ChainError(message, name))
    with pytest.raises(Unavailable) as caught:
        outcome(result, AT)
    assert caught.value.fate_unknown is fate_unknown


@pytest.mark.parametrize(
    "error", [bt.RpcConnectionError("gone"), bt.ChainError("gone"), SubstrateRequestException("gone")]
)
def test_after_the_signature_every_failure_is_open(error: Exception) -> None:
    assert unavailable(_told(SignedAlready("twice"), sent=True))
    assert unavailable(_told(error, sent=True))
    assert not unavailable(_told(error, sent=False))


@pytest.mark.parametrize("block_time_s", [0.0, 3601.0])
async def test_a_time_that_no_chain_has_between_two_blocks_is_drift(block_time_s: float) -> None:
    async with in_memory(subtensor(block_time_s=block_time_s)) as chain:
        with pytest.raises(Incompatible, match="no time between two blocks"):
            await chain.info()


async def test_a_number_that_no_block_has_is_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    async with in_memory(subtensor()) as chain:
        monkeypatch.setattr(MemorySubstrate, "block_number", AsyncMock(return_value=1 << 70))
        with pytest.raises(Incompatible, match="is no block number"):
            await chain.head()


def test_our_own_limits_say_that_nothing_was_sent() -> None:
    spend, fee, unknown = (
        _told(bt.PolicyError([text]), sent=False)
        for text in ("spend 2 exceeds max_spend_tao 1", "fee 2 exceeds", "the fee could not be estimated")
    )
    assert isinstance(spend, BadInput)
    assert not isinstance(fee, Unavailable | BadInput)
    assert not unavailable(unknown)
    assert all("nothing was sent" in str(error) for error in (spend, fee, unknown))


def _told(error: Exception, *, sent: bool) -> ChainError:
    told = fault(error, AT, sent=sent)
    assert isinstance(told, ChainError)
    return told
