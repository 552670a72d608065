"""The loopback node without the SDK's client: bare frames, hostile ones too, and a node as a process."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from typing import Any

import bittensor_core
import pytest
from bittensor._transport.codec import RuntimeCodec
from bittensor.sp_core import Keypair
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.support.subtensor.chain import Subtensor
from tests.support.subtensor.fixtures import NETUID, within
from tests.support.subtensor.metadata import RuntimeKind, runtime_metadata
from tests.support.subtensor.node import LoopbackNode
from tests.support.subtensor.process import NodeProcess
from tests.support.subtensor.rpc import MAX_BATCH, MAX_FRAME_BYTES, MAX_SUBSCRIPTIONS

ALICE = Keypair.create_from_uri("//Alice")


@pytest.fixture
async def node() -> AsyncIterator[LoopbackNode]:
    async with LoopbackNode(Subtensor(netuid=NETUID)) as node:
        yield node


@pytest.fixture
async def socket(node: LoopbackNode) -> AsyncIterator[ClientConnection]:
    async with connect(node.url, max_size=None) as socket:
        yield socket


async def ask(socket: ClientConnection, frame: Any) -> Any:
    """The answer to a frame: text as it is, anything else as JSON."""
    await socket.send(frame if isinstance(frame, str) else json.dumps(frame))
    return json.loads(await within(socket.recv()))


async def call(socket: ClientConnection, method: str, *params: Any) -> Any:
    return await ask(socket, {"jsonrpc": "2.0", "id": 1, "method": method, "params": list(params)})


def codec() -> RuntimeCodec:
    metadata = runtime_metadata(RuntimeKind.FITTING, 12_000)
    return RuntimeCodec(metadata, spec_version=461, transaction_version=1)


def registration() -> tuple[str, str, dict[str, Any]]:
    return "SubtensorModule", "burned_register", {"netuid": NETUID, "hotkey": ALICE.ss58_address}


def carrier(sealed: bytes) -> tuple[str, str, dict[str, Any]]:
    return "MevShield", "submit_encrypted", {"ciphertext": sealed}


def signed(
    node: LoopbackNode,
    call: tuple[str, str, dict[str, Any]] | None = None,
    *,
    nonce: int = 0,
    era: Any = "00",
    **changed: Any,
) -> str:
    """A call by Alice in hex, her own registration by default; `changed` is what she signs in its place."""
    runtime, genesis = codec(), node.chain.block(0)
    assert genesis is not None
    body = runtime.compose_call(*(call or registration()))
    fields = {"era": era, "nonce": nonce, "tip": 0, "tip_asset_id": None}
    hashes = {"genesis_hash": genesis.hash, "era_block_hash": genesis.hash}
    payload = runtime.signature_payload(body, **{**fields, **hashes, **changed})
    data, _ = runtime.encode_signed_extrinsic(
        body, public_key=ALICE.public_key, signature=ALICE.sign(payload), signature_version=1, **fields
    )
    return f"0x{data.hex()}"


async def test_single_requests_and_batches_are_answered_in_order(
    node: LoopbackNode, socket: ClientConnection
) -> None:
    assert (await call(socket, "chain_getHead"))["result"] == node.chain.head.hash
    batch = [{"jsonrpc": "2.0", "id": i, "method": "chain_getBlockHash", "params": [i]} for i in (2, 0, 99)]
    blocks = [node.chain.block(i) for i in (2, 0, 99)]
    assert [(each["id"], each["result"]) for each in await ask(socket, batch)] == [
        (i, block.hash if block else None) for i, block in zip((2, 0, 99), blocks, strict=True)
    ]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("{", -32700),
        ("[" * 100_000, -32700),
        ("\u0000", -32700),
        ([], -32600),
        (7, -32600),
        ({"id": 1}, -32600),
        ({"id": 1, "method": 7}, -32600),
        ([{"id": 1, "method": "chain_getHead"}] * (MAX_BATCH + 1), -32010),
        ({"id": 1, "method": "sudo_everything"}, -32601),
        ({"id": 1, "method": "chain_getHeader", "params": {"hash": 1}}, -32602),
        ({"id": 1, "method": "chain_getHeader", "params": [7]}, -32602),
        ({"id": 1, "method": "chain_getHeader", "params": ["0x00"]}, 4003),
        ({"id": 1, "method": "chain_getBlockHash", "params": [{}]}, -32602),
        ({"id": 1, "method": "state_getStorageAt", "params": ["0xzz"]}, -32602),
        ({"id": 1, "method": "state_getStorageAt", "params": []}, -32602),
        ({"id": 1, "method": "state_queryStorageAt", "params": [["0x"] * 1001]}, -32602),
        ({"id": 1, "method": "state_getKeysPaged", "params": ["0x", 10**9]}, -32602),
        ({"id": 1, "method": "state_call", "params": ["Core_reboot", "0x"]}, 4003),
        ({"id": 1, "method": "state_call", "params": ["SubnetInfoRuntimeApi_get_metagraph", "0x"]}, 4003),
        ({"id": 1, "method": "author_submitExtrinsic", "params": ["0x"]}, 1002),
        ({"id": 1, "method": "author_submitExtrinsic", "params": ["0x28" + "00" * 10]}, 1002),
        ({"id": 1, "method": "author_submitAndWatchExtrinsic", "params": ["0xffffffff"]}, 1002),
    ],
)
async def test_what_is_malformed_gets_an_error_and_does_no_harm(
    node: LoopbackNode, socket: ClientConnection, frame: Any, code: int
) -> None:
    assert (await ask(socket, frame))["error"]["code"] == code
    assert (await call(socket, "chain_getHead"))["result"] == node.chain.head.hash


async def test_a_frame_that_is_too_large_ends_its_connection_only(
    node: LoopbackNode, socket: ClientConnection
) -> None:
    async with connect(node.url) as other:
        with pytest.raises(ConnectionClosed):
            await ask(other, " " * (MAX_FRAME_BYTES + 1))
    assert (await call(socket, "chain_getHead"))["result"] == node.chain.head.hash


async def test_subscriptions_are_limited_and_told_of_new_and_final_heads(
    node: LoopbackNode, socket: ClientConnection
) -> None:
    expected = {}
    for method, first in (
        ("chain_subscribeNewHeads", node.chain.head),
        ("chain_subscribeFinalizedHeads", node.chain.finalized),
    ):
        identifier = (await call(socket, method))["result"]
        notice = json.loads(await within(socket.recv()))
        assert notice["params"]["subscription"] == identifier
        assert int(notice["params"]["result"]["number"], 16) == first.number
        expected[identifier] = first.number + 1
    await node.advance()
    notices = [json.loads(await within(socket.recv()))["params"] for _ in expected]
    assert {each["subscription"]: int(each["result"]["number"], 16) for each in notices} == expected
    for _ in range(MAX_SUBSCRIPTIONS - len(expected)):
        assert "result" in await call(socket, "chain_subscribeNewHeads")
        await within(socket.recv())
    assert (await call(socket, "chain_subscribeNewHeads"))["error"]["code"] == -32006


async def test_only_a_signature_over_this_chain_runtime_nonce_and_era_is_taken(
    node: LoopbackNode, socket: ClientConnection
) -> None:
    node.chain.fund(ALICE.ss58_address, 100)
    await node.advance(3)
    other = "0x" + "07" * 32
    mortal = {"period": 64, "current": node.chain.head.number}
    for wrong in (
        signed(node, genesis_hash=other),
        signed(node, era_block_hash=other),
        signed(node, nonce=0, tip=5),
        signed(node, era=mortal),
        signed(node)[:-2] + "ff",
    ):
        error = (await call(socket, "author_submitExtrinsic", wrong))["error"]
        assert (error["code"], error["data"]) == (1010, "Transaction has a bad signature")
    assert not node.chain.pool.waiting
    right = signed(node, era=mortal, era_block_hash=node.chain.head.hash)
    assert "result" in await call(socket, "author_submitExtrinsic", right)
    assert (await call(socket, "account_nextIndex", ALICE.ss58_address))["result"] == 1
    await node.advance()
    stale = (await call(socket, "author_submitExtrinsic", signed(node)))["error"]
    assert (stale["code"], stale["data"]) == (1010, "Transaction is outdated")
    assert node.chain.uid(ALICE.ss58_address) == 1


async def test_what_a_stranger_seals_for_the_shield_does_no_harm() -> None:
    async with LoopbackNode(Subtensor(netuid=NETUID), shielded=True) as node, connect(node.url) as socket:
        node.chain.fund(ALICE.ss58_address, 100)
        key = bytes.fromhex(node.chain.value("MevShield", "NextKey")[2:])
        right = bittensor_core.encrypt_mlkem768(key, bytes.fromhex(signed(node, nonce=6)[2:]), True)
        for nonce, sealed in enumerate(
            (
                b"hello",
                b"0xzz",
                right[:40],
                right[:-1] + bytes([right[-1] ^ 1]),
                bittensor_core.encrypt_mlkem768(key, b"no extrinsic", True),
                right,
            )
        ):
            assert "result" in await call(
                socket, "author_submitExtrinsic", signed(node, carrier(sealed), nonce=nonce)
            )
        block = await node.advance()
        functions = [each.call.function for each in block.extrinsics]
        assert functions == ["set", *["submit_encrypted"] * 6, "burned_register"]


async def test_every_value_on_the_wire_decodes_to_what_the_model_holds(
    node: LoopbackNode, socket: ClientConnection
) -> None:
    await node.advance(25)
    runtime, seen = codec(), 0
    for pallet in runtime.metadata_ir().pallets:
        for item in pallet.storage:
            if (pallet.name, item.name) == ("System", "Events"):
                continue
            entry = runtime.storage_entry(pallet.name, item.name)
            prefix = "0x" + runtime.storage_key(entry, []).hex()
            for key in (await call(socket, "state_getKeysPaged", prefix, 1000, prefix[:-2]))["result"]:
                raw = (await call(socket, "state_getStorageAt", key, node.chain.head.hash))["result"]
                value = runtime.decode(entry.value_type, bytes.fromhex(raw[2:]))
                params = runtime.decode_storage_key_params(entry, bytes.fromhex(key[2:]), fixed=0)
                assert value == node.chain.value(pallet.name, item.name, tuple(params)), (item.name, params)
                seen += 1
    assert seen > 40


async def test_a_watch_tells_the_whole_fate_of_an_extrinsic(
    node: LoopbackNode, socket: ClientConnection
) -> None:
    node.chain.fund(ALICE.ss58_address, 100)

    async def notice() -> Any:
        return json.loads(await within(socket.recv()))["params"]["result"]

    assert "result" in await call(socket, "author_submitAndWatchExtrinsic", signed(node))
    assert await notice() == "ready"
    first = await node.advance()
    assert await notice() == {"inBlock": first.hash}
    await node.reorganise(1)
    assert await notice() == {"retracted": first.hash}
    second = await node.advance()
    assert await notice() == {"inBlock": second.hash}
    await node.advance(node.chain.finality_lag)
    assert await notice() == {"finalized": second.hash}


async def test_a_watch_says_why_an_extrinsic_will_not_come(
    node: LoopbackNode, socket: ClientConnection
) -> None:
    node.chain.fund(ALICE.ss58_address, 100)

    async def notice() -> Any:
        return json.loads(await within(socket.recv()))["params"]["result"]

    assert "result" in await call(socket, "author_submitAndWatchExtrinsic", signed(node))
    included = await node.advance()
    await node.reorganise(1, lose=True)
    expected = ["ready", {"inBlock": included.hash}, {"retracted": included.hash}, "dropped"]
    assert [await notice() for _ in expected] == expected

    head = node.chain.head
    short = signed(node, era={"period": 4, "current": head.number}, era_block_hash=head.hash)
    assert "result" in await call(socket, "author_submitAndWatchExtrinsic", short)
    node.chain.make_block(4, empty=True)
    await node.advance()
    assert [await notice(), await notice()] == ["ready", "invalid"]


async def test_a_node_as_a_process_is_driven_by_lines_and_ends_on_a_signal() -> None:
    async with NodeProcess("--port", "0", "--tempo", "30") as node:
        head = (await node.tell("head"))["number"]
        assert (await node.tell("advance", count=3))["number"] == head + 3
        assert await node.tell("value", module="SubtensorModule", item="Tempo", params=[NETUID]) == 30
        assert await node.tell("enroll", hotkey=ALICE.ss58_address, coldkey=ALICE.ss58_address) == 1
        async with connect(node.url) as socket:
            await node.tell("fault", kind="rate_limit", times=1)
            assert (await call(socket, "chain_getHead"))["error"]["code"] == -32005
            assert int((await call(socket, "chain_getHeader"))["result"]["number"], 16) == head + 3
            await node.tell("restart")
            with pytest.raises(ConnectionClosed):
                await call(socket, "chain_getHead")
        for nonsense in ("{", "[]", "{}", '{"do": "explode"}', '{"do": "advance", "speed": 1}'):
            assert not (await node.tell_line(nonsense))["ok"]
        with pytest.raises(ValueError, match="no uid"):
            await node.tell("permit", hotkey="5Nobody")
        node.process.send_signal(signal.SIGTERM)
        assert await within(node.process.wait()) == 0
