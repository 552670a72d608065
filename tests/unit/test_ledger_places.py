"""The embedded ledger's subnet: who gets a place, whose weights count, and who loses either."""

from pathlib import Path

from iota.chain.ledger.book import OWNER_UID
from iota.chain.ledger.client import LedgerChain
from iota.protocol.messages import Role
from tests.support.ledgers import MINER, NETUID, OTHER, VALIDATOR, Clock, served


async def test_a_full_subnet_refuses_while_all_are_immune_and_then_replaces_the_worst(tmp_path: Path) -> None:
    clock = Clock()
    async with (
        served(tmp_path, clock, max_uids=3, immunity_blocks=10, tempo=5) as url,
        LedgerChain(url, VALIDATOR) as validator,
        LedgerChain(url, MINER) as miner,
        LedgerChain(url, OTHER) as other,
    ):
        (await validator.register(NETUID, Role.VALIDATOR)).check()
        (await miner.register(NETUID)).check()
        (await validator.set_weights(NETUID, {2: 1.0, OWNER_UID: 1.0})).check()
        assert (await other.register(NETUID)).chain_error == "NoNeuronIdAvailable"
        (await miner.serve(NETUID, "203.0.113.7", 1)).check()
        clock.advance(10)
        (await other.register(NETUID)).check()
        assert await other.uid(NETUID, MINER.ss58) is None
        newcomer = (await other.subnet(NETUID)).neurons[2]
        assert (newcomer.hotkey, newcomer.incentive, newcomer.axon) == (OTHER.ss58, 0.0, None)
        (row,) = await other.weights(NETUID)
        assert dict(row.weights) == {OWNER_UID: 65535}, "a newcomer must not inherit his uid's weights"


async def test_hidden_weights_for_one_who_left_are_dropped_at_the_reveal(tmp_path: Path) -> None:
    clock = Clock()
    async with (
        served(tmp_path, clock, max_uids=3, immunity_blocks=2, reveal_blocks=5) as url,
        LedgerChain(url, VALIDATOR) as validator,
        LedgerChain(url, MINER) as miner,
        LedgerChain(url, OTHER) as other,
    ):
        (await miner.register(NETUID)).check()
        clock.advance(1)
        (await validator.register(NETUID, Role.VALIDATOR)).check()
        (await validator.set_weights(NETUID, {1: 1.0})).check()
        clock.advance(2)
        (await other.register(NETUID)).check()
        assert await other.uid(NETUID, OTHER.ss58) == 1
        clock.advance(10)
        assert await validator.weights(NETUID) == ()


async def test_nobody_earns_by_weighing_himself(tmp_path: Path) -> None:
    clock = Clock()
    async with served(tmp_path, clock, tempo=5) as url, LedgerChain(url, VALIDATOR) as chain:
        (await chain.register(NETUID, Role.VALIDATOR)).check()
        (await chain.set_weights(NETUID, {1: 1.0, OWNER_UID: 0.5})).check()
        clock.advance(5)
        incentives = {n.uid: n.incentive for n in (await chain.subnet(NETUID)).neurons}
        assert incentives == {OWNER_UID: 1.0, 1: 0.0}


async def test_a_validator_that_fell_silent_no_longer_counts(tmp_path: Path) -> None:
    clock = Clock()
    async with (
        served(tmp_path, clock, tempo=5, activity_cutoff=8) as url,
        LedgerChain(url, VALIDATOR) as chain,
    ):
        (await chain.register(NETUID, Role.VALIDATOR)).check()
        (await chain.set_weights(NETUID, {OWNER_UID: 1.0})).check()
        clock.advance(5)
        assert (await chain.subnet(NETUID)).neurons[OWNER_UID].incentive == 1.0
        clock.advance(5)
        assert (await chain.subnet(NETUID)).neurons[OWNER_UID].incentive == 0.0
