"""The loopback node under the real SDK: what it accepts, what it refuses, and how it fails on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bittensor as bt
import pytest

from tests.support.subtensor.chain import Subtensor
from tests.support.subtensor.faults import Kind
from tests.support.subtensor.fixtures import (
    NETUID,
    client,
    enrolled,
    loopback_node,
    new_wallet,
    sdk_home,
    within,
)
from tests.support.subtensor.metadata import RuntimeKind
from tests.support.subtensor.node import LoopbackNode

__all__ = ["loopback_node", "new_wallet", "sdk_home"]

NewWallet = Callable[[str], Any]
UNPRINTABLE = bytes(range(128, 192))


def burned_register(wallet: Any) -> Any:
    return bt.calls.SubtensorModule.burned_register(netuid=NETUID, hotkey=wallet.hotkey.ss58_address)


# What works


async def test_a_client_connects_and_reads_the_clock(loopback_node: LoopbackNode) -> None:
    chain = loopback_node.chain
    async with client(loopback_node) as sdk:
        assert await within(sdk.block()) == chain.head.number
        assert await within(sdk.finalized_block()) == chain.finalized.number == chain.head.number - 2
        assert await within(sdk.block_time()) == 12.0
        assert await within(sdk.spec_version()) == 461
        assert (await within(sdk.block_info())).timestamp.timestamp() * 1000 == chain.head.time_ms


async def test_raw_registration_shows_in_the_metagraph_at_a_finalized_block(
    loopback_node: LoopbackNode, new_wallet: NewWallet
) -> None:
    wallet = new_wallet("miner")
    loopback_node.chain.fund(wallet.coldkey.ss58_address, 100)
    async with client(loopback_node) as sdk:
        result = await within(sdk.submit_call(burned_register(wallet), wallet, signer="coldkey"))
        assert result.success, result
        assert result.fee.tao > 0
        snapshot = await within(sdk.at(await sdk.finalized_block()))
        metagraph = await within(snapshot.subnets.metagraph(netuid=NETUID))
        uid = await within(sdk.neurons.uid(hotkey_ss58=wallet.hotkey.ss58_address, netuid=NETUID))
        assert metagraph.hotkeys[uid] == wallet.hotkey.ss58_address
        again = await within(sdk.submit_call(burned_register(wallet), wallet, signer="coldkey"))
        assert (again.success, again.error.name) == (False, "HotKeyAlreadyRegisteredInSubNet")


async def test_a_shielded_registration_is_opened_by_the_block_author(
    sdk_home: Path, new_wallet: NewWallet
) -> None:
    wallet = new_wallet("miner")
    chain = Subtensor(netuid=NETUID, block_time_s=0.05)
    chain.fund(wallet.coldkey.ss58_address, 100)
    async with LoopbackNode(chain, shielded=True, instant=True) as node, client(node) as sdk:
        result = await within(sdk.execute(bt.BurnedRegister(netuid=NETUID), wallet))
        assert result.success, result
        assert result.data["shielded"]
        found = chain.find(result.data["inner_extrinsic_hash"])
        assert found is not None
        block, index = found
        assert block.extrinsics[index].call.function == "burned_register"
        assert block.extrinsics[index - 1].call.function == "submit_encrypted"


async def test_serving_and_commitments_are_read_back(
    loopback_node: LoopbackNode, new_wallet: NewWallet
) -> None:
    async with client(loopback_node) as sdk:
        wallet = enrolled(loopback_node, new_wallet("miner"))
        served = await within(sdk.execute(bt.ServeAxon(netuid=NETUID, ip="203.0.113.7", port=8091), wallet))
        assert served.success, served
        metagraph = await within(sdk.subnets.metagraph(netuid=NETUID))
        assert metagraph.by_hotkey(wallet.hotkey.ss58_address).axon == "203.0.113.7:8091"

        for content in (b"iota:1", UNPRINTABLE):
            info = {"fields": [{f"Raw{len(content)}": content}]}
            call = bt.calls.Commitments.set_commitment(netuid=NETUID, info=info)
            written = await within(sdk.submit_call(call, wallet, signer="hotkey"))
            assert written.success, written
            read = await within(
                sdk.identity.commitment(netuid=NETUID, hotkey_ss58=wallet.hotkey.ss58_address)
            )
            (field,) = read.fields
            assert field == {f"Raw{len(content)}": "0x" + content.hex()}


async def test_plain_weights_are_stored_and_rate_limited(
    loopback_node: LoopbackNode, new_wallet: NewWallet
) -> None:
    chain = loopback_node.chain
    async with client(loopback_node) as sdk:
        wallet = enrolled(loopback_node, new_wallet("validator"))
        intent = bt.SetWeights(netuid=NETUID, weights={0: 1.0, 1: 0.5}, version_key=0)
        await loopback_node.advance(chain.genesis.weights_rate_limit)
        first = await within(sdk.execute(intent, wallet))
        assert first.success, first
        uid = chain.uid(wallet.hotkey.ss58_address)
        assert await within(sdk.query(("SubtensorModule", "Weights"), [NETUID, uid])) == [
            (0, 65535),
            (1, 32768),
        ]
        with pytest.raises(bt.ChainError, match="rate limit is 10 blocks"):
            await within(sdk.execute(intent, wallet))
        raw = bt.calls.SubtensorModule.set_weights(netuid=NETUID, dests=[0], weights=[1], version_key=0)
        second = await within(sdk.submit_call(raw, wallet, signer="hotkey"))
        assert (second.success, second.error.code) == (False, bt.ErrorCode.RATE_LIMITED)


async def test_time_locked_weights_act_when_they_are_revealed(sdk_home: Path, new_wallet: NewWallet) -> None:
    chain = Subtensor(netuid=NETUID, commit_reveal=True)
    async with LoopbackNode(chain, instant=True) as node, client(node) as sdk:
        wallet = enrolled(node, new_wallet("validator"))
        hotkey = wallet.hotkey.ss58_address
        uid = chain.uid(hotkey)
        await node.advance(chain.genesis.weights_rate_limit)
        result = await within(sdk.execute(bt.SetWeights(netuid=NETUID, weights={0: 1.0}), wallet))
        assert result.success, result
        assert result.data["reveal_round"] > 0
        row = ("SubtensorModule", "Weights")
        assert not await within(sdk.query(row, [NETUID, uid]))
        assert chain.reveal(hotkey, {0: 65535}) == 1
        await node.advance(3 * chain.genesis.tempo)
        assert await within(sdk.query(row, [NETUID, uid])) == [(0, 65535)]


# What the chain refuses


async def test_weights_without_a_permit_are_refused(
    loopback_node: LoopbackNode, new_wallet: NewWallet
) -> None:
    async with client(loopback_node) as sdk:
        wallet = enrolled(loopback_node, new_wallet("validator"))
        await loopback_node.advance(loopback_node.chain.genesis.weights_rate_limit)
        loopback_node.chain.permit(wallet.hotkey.ss58_address, False)
        intent = bt.SetWeights(netuid=NETUID, weights={0: 1.0, 1: 1.0}, version_key=0)
        result = await within(sdk.execute(intent, wallet))
        assert (result.success, result.error.name) == (False, "NeuronNoValidatorPermit")


async def test_a_signature_over_anything_else_is_refused(
    loopback_node: LoopbackNode, new_wallet: NewWallet
) -> None:
    wallet = new_wallet("miner")
    loopback_node.chain.fund(wallet.coldkey.ss58_address, 100)
    async with client(loopback_node) as sdk:
        unsigned = await sdk.prepare_call(burned_register(wallet), address=wallet.coldkey.ss58_address)
        forged = wallet.coldkey.sign(unsigned.payload + b"x")
        refused = await within(sdk.submit_signature(unsigned, forged))
        assert not refused.success
        assert "signature does not match" in refused.message
        accepted = await within(sdk.submit_signature(unsigned, wallet.coldkey.sign(unsigned.payload)))
        assert accepted.success, accepted


async def test_what_was_signed_for_the_last_runtime_is_refused(
    loopback_node: LoopbackNode, new_wallet: NewWallet
) -> None:
    wallet = new_wallet("miner")
    loopback_node.chain.fund(wallet.coldkey.ss58_address, 100)
    async with client(loopback_node) as sdk:
        await within(sdk.block())
        assert (await loopback_node.upgrade()).spec_version == 462
        refused = await within(sdk.submit_call(burned_register(wallet), wallet, signer="coldkey"))
        assert not refused.success
        assert "signature does not match" in refused.message
    async with client(loopback_node) as sdk:
        accepted = await within(sdk.submit_call(burned_register(wallet), wallet, signer="coldkey"))
        assert accepted.success, accepted


async def test_runtimes_that_do_not_fit_the_sdk_fail_where_it_uses_them(
    sdk_home: Path, new_wallet: NewWallet
) -> None:
    chain = Subtensor(netuid=NETUID)
    intent = bt.SetWeights(netuid=NETUID, weights={0: 1.0, 1: 1.0}, version_key=0)
    async with LoopbackNode(chain, instant=True, kind=RuntimeKind.ITEM_ABSENT) as node:
        async with client(node) as sdk:
            wallet = enrolled(node, new_wallet("validator"))
            await node.advance(chain.genesis.weights_rate_limit)
            with pytest.raises(ValueError, match="SubnetEpochConsensus"):
                await within(sdk.execute(intent, wallet))
        await node.upgrade(RuntimeKind.CALL_CHANGED)
        async with client(node) as sdk:
            with pytest.raises(ValueError, match="weights_key"):
                await within(sdk.execute(intent, wallet))


# What goes wrong on the wire


async def test_a_method_that_hangs_holds_up_nothing_else(loopback_node: LoopbackNode) -> None:
    async with client(loopback_node) as sdk:
        loopback_node.faults.set(Kind.HANG, "chain_getHeader")
        with pytest.raises(TimeoutError):
            await within(sdk.block(), 0.3)
        assert await within(sdk.query(("SubtensorModule", "Tempo"), [NETUID])) == 20
        loopback_node.faults.clear()
        assert await within(sdk.block()) == loopback_node.chain.head.number


async def test_a_dropped_request_is_sent_again_by_the_transport(loopback_node: LoopbackNode) -> None:
    async with client(loopback_node) as sdk:
        fault = loopback_node.faults.set(Kind.DROP, "chain_getHeader", times=1)
        assert await within(sdk.block()) == loopback_node.chain.head.number
        assert fault.met == 1


async def test_a_submission_may_land_although_its_answer_is_lost(
    loopback_node: LoopbackNode, new_wallet: NewWallet
) -> None:
    wallet = new_wallet("miner")
    loopback_node.chain.fund(wallet.coldkey.ss58_address, 100)
    async with client(loopback_node) as sdk:
        fault = loopback_node.faults.set(Kind.DROP_AFTER, "author_submitAndWatchExtrinsic")
        result = await within(sdk.submit_call(burned_register(wallet), wallet, signer="coldkey"))
        assert not result.success
        assert "may already be in the pool" in result.message
        assert fault.met == 1, "the transport never submits twice"
        await loopback_node.advance()
        assert await within(sdk.neurons.uid(hotkey_ss58=wallet.hotkey.ss58_address, netuid=NETUID)) == 1


async def test_a_node_that_refuses_cannot_be_reached_until_it_listens(loopback_node: LoopbackNode) -> None:
    await loopback_node.refuse()
    with pytest.raises(bt.RpcConnectionError, match="could not connect"):
        async with client(loopback_node) as sdk:
            await within(sdk.block())
    await loopback_node.listen()
    async with client(loopback_node) as sdk:
        assert await within(sdk.block()) == loopback_node.chain.head.number


async def test_a_client_outlives_a_restart(loopback_node: LoopbackNode) -> None:
    async with client(loopback_node) as sdk:
        await within(sdk.block())
        await loopback_node.restart()
        await loopback_node.advance()
        assert await within(sdk.block()) == loopback_node.chain.head.number


async def test_rate_limits_are_told_apart(loopback_node: LoopbackNode) -> None:
    async with client(loopback_node) as sdk:
        loopback_node.faults.set(Kind.RATE_LIMIT, "chain_getHeader", times=1)
        with pytest.raises(bt.RpcPolicyError, match="rate limit exceeded"):
            await within(sdk.block())
        loopback_node.faults.set(Kind.POLICY_CLOSE, times=1)
        with pytest.raises(bt.RpcPolicyError, match="1008"):
            await within(sdk.block())
    loopback_node.faults.set(Kind.HANDSHAKE_429, times=1)
    with pytest.raises(bt.RpcPolicyError, match="429"):
        async with client(loopback_node):
            pass


async def test_a_slow_node_answers_late(loopback_node: LoopbackNode) -> None:
    async with client(loopback_node) as sdk:
        loopback_node.faults.set(Kind.SLOW, seconds=0.3)
        with pytest.raises(TimeoutError):
            await within(sdk.block(), 0.1)
        loopback_node.faults.clear()
        assert await within(sdk.block()) == loopback_node.chain.head.number


async def test_a_full_pool_takes_nothing(loopback_node: LoopbackNode, new_wallet: NewWallet) -> None:
    wallet = new_wallet("miner")
    loopback_node.chain.fund(wallet.coldkey.ss58_address, 100)
    async with client(loopback_node) as sdk:
        loopback_node.faults.set(Kind.FULL_MEMPOOL)
        result = await within(sdk.submit_call(burned_register(wallet), wallet, signer="coldkey"))
        assert not result.success
        assert "Immediately Dropped" in result.message
        assert not loopback_node.chain.pool.waiting


# What goes wrong with the chain


async def test_a_block_that_is_replaced_takes_its_extrinsics_back_into_the_pool(
    sdk_home: Path, new_wallet: NewWallet
) -> None:
    wallet = new_wallet("miner")
    chain = Subtensor(netuid=NETUID)
    chain.fund(wallet.coldkey.ss58_address, 100)
    async with LoopbackNode(chain) as node, client(node) as sdk:
        submission = asyncio.create_task(
            sdk.submit_call(burned_register(wallet), wallet, signer="coldkey", wait_for_finalization=True)
        )
        await within(node.pooled())
        included = await node.advance()
        await node.reorganise(1)
        result = await within(submission)
        assert not result.success
        assert "retracted" in result.message
        assert chain.block(included.number) != included
        (waiting,) = chain.pool.waiting
        await node.advance()
        assert chain.find(waiting.hash) is not None
        assert chain.uid(wallet.hotkey.ss58_address) == 1


async def test_nothing_becomes_final_while_finality_stalls(sdk_home: Path, new_wallet: NewWallet) -> None:
    wallet = new_wallet("miner")
    chain = Subtensor(netuid=NETUID)
    chain.fund(wallet.coldkey.ss58_address, 100)
    async with LoopbackNode(chain) as node, client(node) as sdk:
        chain.finality_stalled = True
        call = burned_register(wallet)
        submission = asyncio.create_task(sdk.submit_call(call, wallet, signer="coldkey"))
        await within(node.pooled())
        before = chain.finalized
        await node.advance(10)
        assert await within(sdk.finalized_block()) == before.number
        assert not submission.done()
        chain.finality_stalled = False
        await node.advance()
        assert (await within(submission)).success
