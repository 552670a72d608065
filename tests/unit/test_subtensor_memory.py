"""The SDK's own client over the model chain in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bittensor as bt
import pytest
from bittensor.result import ErrorCode, RpcConnectionError
from bittensor.sp_core import Keypair

from tests.support.subtensor.chain import Subtensor
from tests.support.subtensor.memory import MemorySubstrate

NETUID = 9


def wallet(name: str) -> Any:
    coldkey, hotkey = Keypair.create_from_uri(f"//{name}"), Keypair.create_from_uri(f"//{name}//hot")
    return SimpleNamespace(coldkey=coldkey, coldkeypub=coldkey, hotkey=hotkey)


MINER, VALIDATOR = wallet("miner"), wallet("validator")
HOTKEY = VALIDATOR.hotkey.ss58_address


@pytest.fixture(autouse=True)
def _no_cache_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTCLI_TOKEN_SYMBOLS_CACHE", str(tmp_path / "symbols.json"))


@pytest.fixture
def chain() -> Subtensor:
    chain = Subtensor(tempo=10, serving_rate_limit=0)
    chain.fund(MINER.coldkey.ss58_address, 10)
    chain.enroll(HOTKEY, VALIDATOR.coldkey.ss58_address, stake=100.0, permit=True)
    return chain


@pytest.fixture
def substrate(chain: Subtensor) -> MemorySubstrate:
    return MemorySubstrate(chain)


@pytest.fixture
async def client(substrate: MemorySubstrate) -> AsyncIterator[Any]:
    async with bt.Client("local", substrate=substrate) as client:
        yield client


def registration(who: Any = MINER) -> Any:
    return bt.calls.SubtensorModule.burned_register(netuid=NETUID, hotkey=who.hotkey.ss58_address)


async def register(client: Any, who: Any = MINER) -> Any:
    return await client.submit_call(registration(who), who, signer="coldkey")


async def test_a_neuron_from_registration_to_metagraph(client: Any, chain: Subtensor) -> None:
    result = await register(client)
    assert result.success
    assert result.fee.rao == 166_247
    height = int(result.extrinsic_id.split("-")[0])
    assert height <= await client.finalized_block()
    address = MINER.hotkey.ss58_address
    assert await client.neurons.uid(hotkey_ss58=address, netuid=NETUID) == 2
    assert (await client.execute(bt.ServeAxon(netuid=NETUID, ip="9.8.7.6", port=8091), MINER)).success
    info = {"fields": [{"Raw5": b"hello"}]}
    commit = bt.calls.Commitments.set_commitment(netuid=NETUID, info=info)
    assert (await client.submit_call(commit, MINER, signer="hotkey")).success
    graph = await client.subnets.metagraph(netuid=NETUID)
    neuron = graph.by_hotkey(address)
    assert (neuron.uid, neuron.axon, neuron.commitment.value) == (2, "9.8.7.6:8091", "hello")
    assert neuron.block_at_registration == height
    assert graph.neuron(1).total_stake.alpha == 100.0
    read = await client.identity.commitment(netuid=NETUID, hotkey_ss58=address)
    assert (read.data, read.block) == (
        "hello",
        chain.value("Commitments", "LastCommitment", (NETUID, address)),
    )
    snapshot = await client.at(height - 1)
    assert len(await snapshot.subnets.metagraph(netuid=NETUID)) == 2
    assert await client.subnets.metagraph(netuid=77) is None


async def test_a_registration_under_the_shield(chain: Subtensor) -> None:
    async with bt.Client("local", substrate=MemorySubstrate(chain, shielded=True)) as client:
        result = await client.execute(bt.BurnedRegister(netuid=NETUID), MINER)
    assert result.success
    assert result.data["shielded"]
    assert chain.uid(MINER.hotkey.ss58_address) == 2
    carrier, inner = chain.block(int(result.extrinsic_id.split("-")[0])).extrinsics[1:]  # type: ignore[union-attr]
    assert (carrier.call.function, inner.call.function) == ("submit_encrypted", "burned_register")


async def test_plain_weights_and_the_epoch(client: Any, chain: Subtensor) -> None:
    await register(client)
    result = await client.execute(bt.SetWeights(netuid=NETUID, weights={0: 1.0, 2: 3.0}), VALIDATOR)
    assert result.success
    assert "reveal_round" not in result.data
    assert await client.weights.weights(netuid=NETUID) == {
        1: {0: pytest.approx(0.25), 2: pytest.approx(0.75)}
    }
    status = await client.epochs.epoch_status(netuid=NETUID)
    assert status["blocks_remaining"] == status["next_epoch_start_block"] - chain.head.number
    assert (status["tempo"], status["seconds_remaining"]) == (10, status["blocks_remaining"] * 12.0)
    chain.make_epoch()
    again = await client.epochs.epoch_status(netuid=NETUID)
    assert again["epoch_index"] == status["epoch_index"] + 1
    chain.edit_subnet("WeightsSetRateLimit", 1000)
    with pytest.raises(bt.ChainError) as raised:
        await client.execute(bt.SetWeights(netuid=NETUID, weights={0: 1.0}), VALIDATOR)
    assert raised.value.code is ErrorCode.RATE_LIMITED


async def test_timelocked_weights(client: Any, chain: Subtensor) -> None:
    chain.edit_subnet("CommitRevealWeightsEnabled", True)
    result = await client.execute(bt.SetWeights(netuid=NETUID, weights={0: 1.0}), VALIDATOR)
    assert result.success
    pending = await client.weights.timelocked_weight_commits(netuid=NETUID)
    ((commit,),) = pending.values()
    assert (commit["hotkey"], commit["reveal_round"]) == (HOTKEY, result.data["reveal_round"])
    chain.reveal(HOTKEY, {0: 65535})
    chain.make_epoch()
    assert await client.weights.weights(netuid=NETUID) == {1: {0: 1.0}}


async def test_refusals_have_the_names_of_the_sdk(client: Any, chain: Subtensor) -> None:
    chain.permit(HOTKEY, False)
    failed = await client.execute(bt.SetWeights(netuid=NETUID, weights={0: 1.0}), VALIDATOR)
    assert (failed.success, failed.error.name) == (False, "NeuronNoValidatorPermit")
    assert failed.error.code is ErrorCode.NOT_AUTHORIZED
    poor = await register(client, VALIDATOR)
    assert (poor.error.name, poor.error.code) == ("Payment", ErrorCode.INSUFFICIENT_BALANCE)
    chain.pool.limit = 0
    full = await register(client)
    assert not full.success
    assert "limit" in full.message


async def test_hyperparameters_and_costs(client: Any, chain: Subtensor) -> None:
    values = await client.read("subnet_hyperparameters", netuid=NETUID)
    assert (values["tempo"], values["max_validators"]) == (10, 64)
    assert (await client.read("burn", netuid=NETUID)).tao == pytest.approx(0.1, rel=0.1)
    assert (await client.read("balance", coldkey_ss58=MINER.coldkey.ss58_address)).tao == 10.0
    assert (await client.read("existential_deposit")).rao == 500
    assert len(await client.neurons.all(netuid=NETUID)) == 2


async def test_a_hanging_node_and_one_that_fails(client: Any, substrate: MemorySubstrate) -> None:
    substrate.hang()
    call = asyncio.create_task(client.block())
    done, _ = await asyncio.wait([call], timeout=0)
    assert not done
    substrate.release()
    assert await call == substrate.chain.head.number
    substrate.fail_next(RpcConnectionError("gone"))
    with pytest.raises(RpcConnectionError, match="gone"):
        await client.block()
    assert await client.block() == substrate.chain.head.number


async def test_a_lost_answer_after_a_write_that_landed(client: Any, substrate: MemorySubstrate) -> None:
    substrate.lose_answer_next()
    with pytest.raises(RpcConnectionError):
        await register(client)
    assert substrate.chain.uid(MINER.hotkey.ss58_address) == 2
    (sent,) = substrate.submitted
    assert substrate.chain.find(sent.hash) is not None


async def test_a_reorganisation_while_a_write_waits_for_finality(chain: Subtensor) -> None:
    substrate = MemorySubstrate(chain, manual=True)
    async with bt.Client("local", substrate=substrate) as client:
        write = asyncio.create_task(register(client))
        await substrate.wait_sent()
        chain.make_block()
        await asyncio.sleep(0)
        chain.reorganise(1)
        result = await write
    assert (result.success, result.error.name) == (False, "Retracted")
    chain.make_block()
    assert chain.uid(MINER.hotkey.ss58_address) == 2, "it landed all the same"


async def test_a_runtime_that_lacks_what_the_sdk_reads(client: Any, substrate: MemorySubstrate) -> None:
    substrate.absent.add(("SubtensorModule", "SubnetEpochConsensus"))
    with pytest.raises(ValueError, match="SubnetEpochConsensus"):
        await client.execute(bt.SetWeights(netuid=NETUID, weights={0: 1.0}), VALIDATOR)


async def test_heads_are_told_as_they_come(client: Any, chain: Subtensor) -> None:
    heads = aiter(client.blocks(finalized=True))
    assert (await anext(heads)).number == chain.finalized.number
    following = asyncio.create_task(anext(heads))
    await asyncio.sleep(0)
    chain.make_block()
    assert (await following).number == chain.finalized.number
