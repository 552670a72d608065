"""What every chain backend must do: one suite over the embedded ledger, over the real SDK with a chain model
in memory, and over the real SDK with a loopback node (`chain_networks`).

It covers: the chain's name and subnets; heads, finalized blocks and hashes, also of blocks that have not
come; unknown subnets; what a registration costs, registration once and twice; uids, the owner's uid, permits
by stake; served addresses, possible and not; commitments of 1 to 128 bytes, now and as of an earlier block;
plain weights, normalised by maximum, public, with their block; the weights' rate limit to the block, also of
a newcomer; refusal of weights without a permit, for absent uids, and of impossible ones; hidden weights and
their reveal; epochs, what they pay, and waiting for them; that every write needs registration and a key.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from iota.chain import (
    BadInput,
    Chain,
    KeyUnavailable,
    NotRegistered,
    RateLimited,
    Rejected,
    TxCode,
    TxMode,
    Unavailable,
)
from iota.identity.keys import Hotkey
from iota.protocol.messages import Role
from tests.support.chain_networks import BACKENDS, NETUID, RATE_LIMIT, TEMPO, Network
from tests.support.subtensor.fixtures import sdk_home  # noqa: F401

VALIDATOR = Hotkey.from_seed(b"\x01" * 32)
MINER = Hotkey.from_seed(b"\x02" * 32)
OTHER = Hotkey.from_seed(b"\x03" * 32)

pytestmark = pytest.mark.usefixtures("sdk_home")


@pytest.fixture(params=BACKENDS)
async def network(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Network]:
    async with BACKENDS[request.param](tmp_path, False) as network:
        yield network


@pytest.fixture(params=BACKENDS)
async def hiding_network(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Network]:
    """Weights stay hidden for a while (commit and reveal)."""
    async with BACKENDS[request.param](tmp_path, True) as network:
        yield network


async def registered(network: Network, hotkey: Hotkey, role: Role = Role.MINER) -> tuple[Chain, int]:
    chain = await network.connect(hotkey)
    (await chain.register(NETUID, role)).check()
    if role is Role.VALIDATOR:
        network.permit(hotkey)
        # A newcomer's rate limit runs from its registration on.
        await network.advance(RATE_LIMIT)
    uid = await chain.uid(NETUID, hotkey.ss58)
    assert uid is not None
    return chain, uid


async def test_info_names_the_chain_and_its_subnets(network: Network) -> None:
    chain = await network.connect()
    info = await chain.info()
    assert NETUID in info.netuids
    assert info.block_time_s > 0
    assert info.genesis == await chain.block_hash(0)


async def test_blocks_come_one_after_another_and_keep_their_hashes(network: Network) -> None:
    chain = await network.connect()
    first = await chain.head()
    await network.advance(3)
    second = await chain.head()
    assert second.number == first.number + 3
    assert second.time > first.time
    assert await chain.block_hash(first.number) == first.hash
    hashes = [await chain.block_hash(n) for n in range(second.number + 1)]
    assert len(set(hashes)) == len(hashes)
    assert all(len(bytes.fromhex(h.removeprefix("0x"))) == 32 for h in hashes)


async def test_the_finalized_block_is_not_after_the_head(network: Network) -> None:
    chain = await network.connect()
    await network.advance(3)
    finalized = await chain.finalized()
    assert finalized.number <= (await chain.head()).number
    assert await chain.block_hash(finalized.number) == finalized.hash


async def test_the_hash_of_a_block_that_has_not_come_is_refused(network: Network) -> None:
    chain = await network.connect()
    with pytest.raises(BadInput, match="not come"):
        await chain.block_hash((await chain.head()).number + 1)


async def test_an_unknown_subnet_is_bad_input(network: Network) -> None:
    chain = await network.connect(MINER)
    with pytest.raises(BadInput, match="subnet 77"):
        await chain.subnet(77)
    with pytest.raises(BadInput, match="subnet 77"):
        await chain.register(77)


async def test_registration_gives_a_uid(network: Network) -> None:
    chain = await network.connect(MINER)
    assert await chain.uid(NETUID, MINER.ss58) is None
    head = await chain.head()
    result = await chain.register(NETUID)
    assert result.ok
    assert result.block is not None
    assert result.block > head.number
    neuron = (await chain.subnet(NETUID)).neuron(MINER.ss58)
    assert neuron is not None
    assert neuron.uid == await chain.uid(NETUID, MINER.ss58)
    assert neuron.registered_at == result.block


async def test_a_registration_costs_what_is_said_before_and_no_more(network: Network) -> None:
    chain = await network.connect(MINER)
    terms = await chain.registration_terms(NETUID)
    assert terms.open
    # Free is free everywhere; a price is never paid above the limit.
    assert (terms.cost_tao > 0) is terms.needs_coldkey
    if terms.cost_tao:
        with pytest.raises(BadInput, match="nothing was sent"):
            await chain.register(NETUID, max_cost_tao=terms.cost_tao / 2)
    assert await chain.uid(NETUID, MINER.ss58) is None
    (await chain.register(NETUID, max_cost_tao=terms.cost_tao)).check()
    assert await chain.uid(NETUID, MINER.ss58) is not None


async def test_registering_twice_is_refused_and_keeps_the_uid(network: Network) -> None:
    chain, uid = await registered(network, MINER)
    again = await chain.register(NETUID)
    assert (again.ok, again.code) == (False, TxCode.ALREADY_EXISTS)
    assert again.chain_error == "HotKeyAlreadyRegisteredInSubNet"
    assert await chain.uid(NETUID, MINER.ss58) == uid


async def test_neurons_are_listed_by_uid_and_one_of_them_owns_the_subnet(network: Network) -> None:
    await registered(network, MINER)
    chain, _ = await registered(network, OTHER)
    subnet = await chain.subnet(NETUID)
    assert [n.uid for n in subnet.neurons] == list(range(len(subnet.neurons)))
    assert subnet.owner_uid in {n.uid for n in subnet.neurons}


async def test_only_stake_earns_a_validator_permit(network: Network) -> None:
    await registered(network, VALIDATOR, Role.VALIDATOR)
    chain, _ = await registered(network, MINER)
    subnet = await chain.subnet(NETUID)
    assert subnet.neuron(VALIDATOR.ss58).validator_permit  # type: ignore[union-attr]
    assert not subnet.neuron(MINER.ss58).validator_permit  # type: ignore[union-attr]


async def test_a_served_address_is_published(network: Network) -> None:
    chain, uid = await registered(network, MINER)
    (await chain.serve(NETUID, "203.0.113.7", 8091)).check()
    axon = (await chain.subnet(NETUID)).neurons[uid].axon
    assert axon is not None
    assert (axon.ip, axon.port) == ("203.0.113.7", 8091)


@pytest.mark.parametrize(("ip", "port"), [("nowhere", 8091), ("203.0.113.7", 0)])
async def test_an_impossible_address_is_refused(network: Network, ip: str, port: int) -> None:
    chain, _ = await registered(network, MINER)
    result = await chain.serve(NETUID, ip, port)
    assert (result.ok, result.code) == (False, TxCode.INVALID_ARGUMENT)


async def test_a_commitment_reads_back_with_its_block(network: Network) -> None:
    chain, _ = await registered(network, MINER)
    data = bytes(range(128))
    assert await chain.commitment(NETUID, MINER.ss58) is None
    result = await chain.commit(NETUID, data)
    found = await (await network.connect()).commitment(NETUID, MINER.ss58)
    assert found is not None
    assert (found.data, found.block) == (data, result.check().block)


async def test_an_earlier_commitment_can_be_proven_after_a_newer_one(network: Network) -> None:
    chain, _ = await registered(network, VALIDATOR, Role.VALIDATOR)
    first = (await chain.commit(NETUID, b"first")).check().block
    await network.advance(5)
    second = (await chain.commit(NETUID, b"second")).check().block
    assert first is not None
    assert second is not None
    before = await chain.commitment(NETUID, VALIDATOR.ss58, at_block=second - 1)
    assert before is not None
    assert (before.block, before.data) == (first, b"first")
    assert await chain.commitment(NETUID, VALIDATOR.ss58, at_block=first - 1) is None


@pytest.mark.parametrize("size", [0, 129])
async def test_a_commitment_has_1_to_128_bytes(network: Network, size: int) -> None:
    chain, _ = await registered(network, MINER)
    with pytest.raises(BadInput, match="128"):
        await chain.commit(NETUID, bytes(size))


async def test_weights_are_normalised_by_maximum_and_public(network: Network) -> None:
    chain, validator = await registered(network, VALIDATOR, Role.VALIDATOR)
    _, miner = await registered(network, MINER)
    _, other = await registered(network, OTHER)
    result = (await chain.set_weights(NETUID, {miner: 0.5, other: 0.25, 0: 0.0})).check()
    assert result.mode is TxMode.PLAIN
    (row,) = await (await network.connect()).weights(NETUID)
    assert (row.uid, row.hotkey, row.block) == (validator, VALIDATOR.ss58, result.block)
    assert dict(row.weights) == {miner: 65535, other: 32768}


async def test_weights_are_rate_limited_to_the_block(network: Network) -> None:
    chain, _ = await registered(network, VALIDATOR, Role.VALIDATOR)
    _, miner = await registered(network, MINER)
    first = (await chain.set_weights(NETUID, {miner: 1.0})).check().block
    assert first is not None
    # The write would get into the block after the head: one too early.
    await network.advance(first + RATE_LIMIT - 2 - (await chain.head()).number)
    result = await chain.set_weights(NETUID, {miner: 1.0})
    assert (result.code, result.chain_error) == (TxCode.RATE_LIMITED, "SettingWeightsTooFast")
    # The SDK looks at the head and not at the block after it, so it waits one block longer than it must.
    await network.advance(2)
    assert (await chain.set_weights(NETUID, {miner: 1.0})).ok


async def test_the_rate_limit_of_a_newcomer_runs_from_its_registration(network: Network) -> None:
    chain = await network.connect(VALIDATOR)
    (await chain.register(NETUID, Role.VALIDATOR)).check()
    network.permit(VALIDATOR)
    with pytest.raises(RateLimited):
        (await chain.set_weights(NETUID, {0: 1.0})).check()


async def test_weights_without_a_permit_are_refused(network: Network) -> None:
    chain, uid = await registered(network, MINER)
    await network.advance(RATE_LIMIT)
    result = await chain.set_weights(NETUID, {uid: 1.0, 0: 1.0})
    assert (result.code, result.chain_error) == (TxCode.NOT_AUTHORIZED, "NeuronNoValidatorPermit")
    with pytest.raises(Rejected):
        result.check()
    assert await chain.weights(NETUID) == ()


async def test_weights_for_a_uid_that_nobody_has_are_refused(network: Network) -> None:
    chain, _ = await registered(network, VALIDATOR, Role.VALIDATOR)
    result = await chain.set_weights(NETUID, {200: 1.0})
    assert (result.code, result.chain_error) == (TxCode.INVALID_ARGUMENT, "UidVecContainInvalidOne")


@pytest.mark.parametrize("weights", [{}, {0: 0.0}, {0: -1.0}, {0: float("nan")}, {70000: 1.0}])
async def test_impossible_weights_are_bad_input(network: Network, weights: dict[int, float]) -> None:
    chain, _ = await registered(network, VALIDATOR, Role.VALIDATOR)
    with pytest.raises(BadInput):
        await chain.set_weights(NETUID, weights)


async def test_every_write_needs_registration(network: Network) -> None:
    chain = await network.connect(OTHER)
    for result in (
        await chain.serve(NETUID, "203.0.113.7", 8091),
        await chain.commit(NETUID, b"x"),
        await chain.set_weights(NETUID, {0: 1.0}),
    ):
        assert result.chain_error == "HotKeyNotRegisteredInSubNet"
        with pytest.raises(NotRegistered):
            result.check()


async def test_every_write_needs_a_key(network: Network) -> None:
    chain = await network.connect()
    for write in (chain.register(NETUID), chain.commit(NETUID, b"x"), chain.set_weights(NETUID, {0: 1.0})):
        with pytest.raises(KeyUnavailable, match="hotkey"):
            await write


async def test_an_epoch_turns_weights_into_incentive(network: Network) -> None:
    chain, validator = await registered(network, VALIDATOR, Role.VALIDATOR)
    _, miner = await registered(network, MINER)
    _, other = await registered(network, OTHER)
    (await chain.set_weights(NETUID, {miner: 3.0, other: 1.0})).check()
    before = await chain.epoch_status(NETUID)
    await network.advance(before.next_epoch_block - before.block)
    after = await chain.epoch_status(NETUID)
    assert (after.index, after.last_epoch_block) == (before.index + 1, before.next_epoch_block)
    neurons = (await chain.subnet(NETUID)).neurons
    assert neurons[miner].incentive == pytest.approx(0.75, abs=1e-4)
    assert neurons[other].incentive == pytest.approx(0.25, abs=1e-4)
    assert neurons[validator].dividends == pytest.approx(1.0)
    assert sum(n.incentive for n in neurons) == pytest.approx(1.0, abs=1e-4)


async def test_hidden_weights_act_only_when_revealed(hiding_network: Network) -> None:
    chain, _ = await registered(hiding_network, VALIDATOR, Role.VALIDATOR)
    _, miner = await registered(hiding_network, MINER)
    result = (await chain.set_weights(NETUID, {miner: 1.0})).check()
    assert result.mode is TxMode.COMMIT
    assert result.reveal_round is not None
    assert await chain.weights(NETUID) == ()
    await hiding_network.reveal(VALIDATOR, result, {miner: 65535})
    (row,) = await chain.weights(NETUID)
    assert dict(row.weights) == {miner: 65535}


async def test_waiting_for_an_epoch_that_has_run_ends_at_once(network: Network) -> None:
    chain = await network.connect()
    before = await chain.epoch_status(NETUID)
    await network.advance(TEMPO)
    status = await chain.wait_epoch(NETUID, after=before.index, timeout_s=30)
    assert status.index > before.index


async def test_waiting_for_an_epoch_ends_at_its_deadline(network: Network) -> None:
    chain = await network.connect()
    async with asyncio.timeout(10):
        with pytest.raises(Unavailable, match="no epoch"):
            await chain.wait_epoch(NETUID, timeout_s=0.05)
