"""The Bittensor backend, where the contract of all backends says nothing: prices, pins, limits, secrets."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import bittensor as bt
import pytest

from iota.chain import BadInput, KeyUnavailable, TxCode, TxMode, open_chain
from iota.chain.bittensor.client import BittensorChain
from iota.chain.bittensor.neurons import read_commitment
from iota.chain.bittensor.transport import scrubbed
from iota.chain.bittensor.wallet import SignedAlready, Signer, WriteKeys
from iota.console.redaction import without_secrets
from iota.identity.keys import Hotkey
from tests.support.bittensor_chains import (
    COLDKEY,
    MINER,
    NETUID,
    VALIDATOR,
    calls_of,
    in_memory,
    over_node,
    subtensor,
)
from tests.support.subtensor.blocks import RAO
from tests.support.subtensor.chain import Subtensor
from tests.support.subtensor.faults import Kind
from tests.support.subtensor.fixtures import sdk_home
from tests.support.subtensor.node import LoopbackNode

__all__ = ["sdk_home"]

NEWCOMER = Hotkey.from_seed(b"\x09" * 32)


@pytest.fixture
async def node(sdk_home: Path) -> AsyncIterator[LoopbackNode]:
    async with LoopbackNode(subtensor(), instant=True) as node:
        yield node


# ---- registration ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shielded", [False, True])
async def test_a_registration_is_hidden_where_the_chain_offers_a_key_for_it(
    sdk_home: Path, shielded: bool
) -> None:
    async with (
        LoopbackNode(subtensor(), instant=True, shielded=shielded) as node,
        over_node(node, NEWCOMER) as chain,
    ):
        assert (await chain.registration_terms(NETUID)).shielded is shielded
        result = (await chain.register(NETUID, max_cost_tao=1)).check()
        neuron = (await chain.subnet(NETUID)).neuron(NEWCOMER.ss58)
        assert neuron is not None
        assert (neuron.registered_at, neuron.coldkey) == (result.block, COLDKEY.ss58)
        carried = ["submit_encrypted"] if shielded else []
        assert calls_of(node.chain, COLDKEY.ss58) == [*carried, "register_limit"]


async def test_a_registration_above_its_limit_sends_nothing(node: LoopbackNode) -> None:
    async with over_node(node, NEWCOMER) as chain:
        terms = await chain.registration_terms(NETUID)
        with pytest.raises(BadInput, match="nothing was sent"):
            await chain.register(NETUID, max_cost_tao=terms.cost_tao * 0.99)
        with pytest.raises(BadInput, match="amount of TAO"):
            await chain.register(NETUID, max_cost_tao=float("nan"))
        assert calls_of(node.chain, COLDKEY.ss58) == []


async def test_a_price_that_rises_on_the_way_is_refused_by_the_chain(sdk_home: Path) -> None:
    model = subtensor(finality_lag=0)
    async with LoopbackNode(model) as node, over_node(node, NEWCOMER) as chain:
        price = (await chain.registration_terms(NETUID)).cost_tao
        sending = asyncio.create_task(chain.register(NETUID, max_cost_tao=price * 1.1))
        await node.pooled()
        model.edit_subnet("Burn", round(price * 2 * RAO))
        await node.advance()
        result = await sending
        assert (result.code, result.chain_error) == (
            TxCode.LIMIT_EXCEEDED,
            "RegistrationPriceLimitExceeded",
        )
        assert await chain.uid(NETUID, NEWCOMER.ss58) is None


async def test_a_closed_subnet_refuses_before_a_fee_is_paid(node: LoopbackNode) -> None:
    node.chain.edit_subnet("NetworkRegistrationAllowed", False)
    async with over_node(node, NEWCOMER) as chain:
        assert not (await chain.registration_terms(NETUID)).open
        result = await chain.register(NETUID)
        assert (result.code, result.chain_error) == (TxCode.DISABLED, "SubNetRegistrationDisabled")
        assert calls_of(node.chain, COLDKEY.ss58) == []


async def test_a_registration_needs_the_coldkey_and_says_where(node: LoopbackNode) -> None:
    async with over_node(node, NEWCOMER, coldkey=None) as chain:
        with pytest.raises(KeyUnavailable, match=r"iota-miner register.*btcli"):
            await chain.register(NETUID)


async def test_a_poor_coldkey_is_told_so(node: LoopbackNode) -> None:
    node.chain.edit("System", "Account", (COLDKEY.ss58,), None)
    async with over_node(node, NEWCOMER) as chain:
        assert await chain.balance(COLDKEY.ss58) == 0.0
        result = await chain.register(NETUID)
        assert (result.ok, result.code) == (False, TxCode.INSUFFICIENT_BALANCE)


# ---- pins -----------------------------------------------------------------------------------------


async def test_what_is_read_of_a_subnet_is_final(node: LoopbackNode) -> None:
    async with over_node(node, MINER) as chain:
        (await chain.commit(NETUID, b"first")).check()
        node.chain.finality_stalled = True
        final, head = await chain.finalized(), await chain.head()
        await node.advance(5)
        subnet = await chain.subnet(NETUID)
        assert subnet.block == final
        assert (await chain.head()).number == head.number + 5
        assert (await chain.epoch_status(NETUID)).block == final.number


async def test_a_block_that_is_replaced_changes_its_hash_and_no_metagraph(node: LoopbackNode) -> None:
    async with over_node(node) as chain:
        await node.advance(2)
        head, subnet = await chain.head(), await chain.subnet(NETUID)
        await node.reorganise(2)
        assert (await chain.head()).number == head.number
        assert await chain.block_hash(head.number) != head.hash
        assert (await chain.subnet(NETUID)).block == subnet.block


async def test_only_plain_bytes_of_a_commitment_are_read(node: LoopbackNode) -> None:
    class Sealed:
        """A view of one commitment, with fields that others may use."""

        async def require_subnet(self, netuid: int) -> None: ...

        async def query(self, item: object, *keys: object) -> object:
            fields = [
                {"Raw2": "0x6162"},
                {"TimelockEncrypted": {"reveal_round": 5}},
                "None",
                {"Raw1": "0x63"},
            ]
            return {"block": 7, "info": {"fields": fields}}

    found = await read_commitment(Sealed(), NETUID, MINER.ss58)  # type: ignore[arg-type]
    assert found is not None
    assert (found.block, found.data) == (7, b"abc")


async def test_a_served_address_that_is_none_is_left_out(node: LoopbackNode) -> None:
    async with over_node(node, MINER) as chain:
        (await chain.serve(NETUID, "2001:db8::7", 8091)).check()
        neuron = (await chain.subnet(NETUID)).neurons[2]
        assert neuron.axon is not None
        assert (neuron.axon.ip, neuron.axon.port) == ("2001:db8::7", 8091)
        for nowhere in ({"ip": 0, "port": 1}, {"ip": 2**40, "port": 1}, {"ip": 1, "port": 0}):
            axon = node.chain.value("SubtensorModule", "Axons", (NETUID, MINER.ss58))
            node.chain.edit(
                "SubtensorModule", "Axons", (NETUID, MINER.ss58), {**axon, "ip_type": 4, **nowhere}
            )
            assert (await chain.subnet(NETUID)).neurons[2].axon is None


# ---- weights --------------------------------------------------------------------------------------


async def test_a_commit_that_would_be_dropped_at_its_reveal_is_refused_at_once(sdk_home: Path) -> None:
    model = subtensor(commit_reveal=True, weights_version=3)
    async with (
        LoopbackNode(model, instant=True) as node,
        over_node(node, VALIDATOR) as chain,
        over_node(node, MINER) as miner,
    ):
        nobody = await chain.set_weights(NETUID, {200: 1.0}, 3)
        old = await chain.set_weights(NETUID, {2: 1.0}, 2)
        powerless = await miner.set_weights(NETUID, {1: 1.0}, 3)
        assert [r.chain_error for r in (nobody, old, powerless)] == [
            "UidVecContainInvalidOne",
            "IncorrectWeightVersionKey",
            "NeuronNoValidatorPermit",
        ]
        assert calls_of(model, VALIDATOR.ss58) == []


async def test_time_locked_weights_are_read_back_after_their_reveal(sdk_home: Path) -> None:
    model = subtensor(commit_reveal=True)
    async with LoopbackNode(model, instant=True) as node, over_node(node, VALIDATOR) as chain:
        result = (await chain.set_weights(NETUID, {2: 0.5, 0: 1.0})).check()
        assert result.mode is TxMode.COMMIT
        assert result.reveal_round is not None
        assert await chain.weights(NETUID) == ()
        assert model.reveal(VALIDATOR.ss58, {0: 65535, 2: 32768}) == 1
        await node.advance(60)
        (row,) = await chain.weights(NETUID)
        assert (row.uid, row.block, dict(row.weights)) == (1, result.block, {0: 65535, 2: 32768})
        again = await chain.set_weights(NETUID, {2: 1.0})
        assert again.ok
        assert (await chain.set_weights(NETUID, {2: 1.0})).chain_error == "CommittingWeightsTooFast"


async def test_weights_that_the_subnet_s_limit_cuts_are_announced(
    sdk_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = subtensor(max_weights_limit=40000)
    async with LoopbackNode(model, instant=True) as node, over_node(node, VALIDATOR) as chain:
        (await chain.set_weights(NETUID, {2: 9.0, 0: 1.0})).check()
        assert "max_weight_limit" in caplog.text
        (row,) = await chain.weights(NETUID)
        assert row.weights[2] / sum(row.weights.values()) == pytest.approx(40000 / 65535, abs=1e-4)


async def test_too_few_weights_are_refused_by_the_chain_s_name(sdk_home: Path) -> None:
    model = subtensor(min_allowed_weights=3)
    async with LoopbackNode(model, instant=True) as node, over_node(node, VALIDATOR) as chain:
        result = await chain.set_weights(NETUID, {2: 9.0, 0: 1.0})
        assert (result.code, result.chain_error) == (TxCode.INVALID_ARGUMENT, "WeightVecLengthIsLow")


async def test_two_writes_at_once_both_land(node: LoopbackNode) -> None:
    async with over_node(node, MINER) as chain:
        results = await asyncio.gather(
            chain.commit(NETUID, b"one"), chain.serve(NETUID, "203.0.113.7", 1), chain.commit(NETUID, b"two")
        )
        assert all(result.ok for result in results)
        assert len({result.block for result in results}) == 3


async def test_a_nonce_that_another_program_took_meanwhile_does_not_matter(node: LoopbackNode) -> None:
    async with over_node(node, MINER) as first, over_node(node, MINER) as second:
        for chain in (first, second, first, second):
            assert (await chain.commit(NETUID, b"x")).ok


async def test_a_write_cannot_land_after_the_lifetime_that_is_announced(node: LoopbackNode) -> None:
    async with over_node(node, MINER) as chain:
        head = await chain.head()
        block = (await chain.commit(NETUID, b"x")).check().block
        lifetime = (await chain.info()).write_lifetime_blocks
    assert block is not None
    held = node.chain.block(block)
    assert held is not None
    (era,) = [extrinsic.era for extrinsic in held.extrinsics if extrinsic.signer == MINER.ss58]
    assert era is not None
    assert block < era[1] <= head.number + lifetime


async def test_what_the_chain_limits_by_time_is_rate_limited(node: LoopbackNode) -> None:
    async with over_node(node, MINER) as chain:
        (await chain.serve(NETUID, "203.0.113.7", 1)).check()
        again = await chain.serve(NETUID, "203.0.113.7", 2)
        assert (again.code, again.chain_error) == (TxCode.RATE_LIMITED, "ServingRateLimitExceeded")
        node.chain.edit("Commitments", "MaxSpace", (), 250)
        for _ in range(2):
            (await chain.commit(NETUID, b"x")).check()
        full = await chain.commit(NETUID, b"x")
        assert (full.code, full.chain_error) == (TxCode.RATE_LIMITED, "SpaceLimitExceeded")


# ---- epochs ---------------------------------------------------------------------------------------


async def test_a_subnet_that_runs_no_epochs_is_bad_input() -> None:
    async with in_memory(Subtensor(netuid=NETUID)) as chain:
        with pytest.raises(BadInput, match="runs no epochs"):
            await chain.wait_epoch(0)


async def test_waiting_for_an_epoch_outlives_a_lost_connection(node: LoopbackNode) -> None:
    async with over_node(node) as chain:
        before = await chain.epoch_status(NETUID)
        lost = node.faults.set(Kind.DROP_AFTER, "chain_subscribeFinalizedHeads", times=2)
        waiting = asyncio.create_task(chain.wait_epoch(NETUID, after=before.index, timeout_s=30))
        await node.advance(1)
        await asyncio.wait({waiting}, timeout=0.5)
        assert not waiting.done()
        await node.advance(25)
        assert (await waiting).index == before.index + 1
        assert lost.met == 2


# ---- keys, names, imports -------------------------------------------------------------------------


def test_a_write_s_keys_sign_once_and_a_shielded_one_s_twice() -> None:
    for keys, times in (
        (WriteKeys.of_hotkey(MINER), 1),
        (WriteKeys.of_coldkey(MINER.ss58, COLDKEY, shielded=False), 1),
        (WriteKeys.of_coldkey(MINER.ss58, COLDKEY, shielded=True), 2),
    ):
        for _ in range(times):
            assert not keys.signer.spent
            assert len(keys.signer.sign(b"payload")) == 64
        assert keys.signer.spent
        with pytest.raises(SignedAlready):
            keys.signer.sign(b"payload")
        assert isinstance(keys, bt.KeyedWallet)


def test_a_signer_shows_no_private_key() -> None:
    signer = Signer(MINER.keypair, 1)
    assert str(signer) == repr(signer) == f"Signer({MINER.ss58})"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("wss://user:secret@host.example/key?token=secret", "wss://host.example"),
        ("ws://127.0.0.1:9944", "ws://127.0.0.1:9944"),
        ("wss://[::1]:1/secret", "wss://[::1]:1"),
        ("wss://host:secret", "wss://host"),
        ("WSS://secret@host/secret", "WSS://host"),
    ],
)
def test_an_endpoint_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
    assert scrubbed(f"cannot\x1b[2J reach '{url}'\nat all") == f"cannot?[2J reach '{shown}' at all"


def test_of_a_frame_full_of_text_only_the_beginning_is_looked_at() -> None:
    said = "no " * (10 << 20)
    start = time.process_time()
    assert scrubbed(said).startswith("no no ")
    assert time.process_time() - start < 0.5


def test_a_url_that_is_no_network_is_named_without_its_secrets() -> None:
    with pytest.raises(BadInput, match=r"no network 'WSS://host\.example'"):
        open_chain("WSS://user:secret@host.example/secret")


def test_an_unknown_network_is_named_with_those_there_are() -> None:
    with pytest.raises(BadInput, match=r"no network 'nowhere'.*finney.*local.*test"):
        open_chain("nowhere")


@pytest.mark.parametrize("network", ["finney", "test", "local", "archive", "ws://127.0.0.1:1", "wss://host"])
async def test_bittensor_s_networks_are_opened_by_this_backend(network: str) -> None:
    async with open_chain(network) as chain:
        assert isinstance(chain, BittensorChain)


def test_the_sdk_is_not_loaded_for_a_ledger() -> None:
    program = (
        "import sys; from iota.chain import open_chain; open_chain('http://127.0.0.1:1');"
        "sys.exit('bittensor' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


async def test_raw_frames_and_headers_are_never_logged(
    sdk_home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with LoopbackNode(subtensor(), instant=True) as node:
        url = node.url.replace("ws://", "ws://user:s3cret@") + "/k3y?token=t0ken"
        async with BittensorChain(url, MINER, coldkey=COLDKEY) as chain:
            (await chain.commit(NETUID, b"x")).check()
            await node.refuse()
            with pytest.raises(Exception, match="no usable answer") as caught:
                await chain.head()
    client_side = [r for r in caplog.records if r.name != "websockets.server"]
    told = "\n".join([str(caught.value), *(r.getMessage() for r in client_side)])
    assert not [secret for secret in ("s3cret", "k3y", "t0ken", "jsonrpc", "Authorization") if secret in told]
