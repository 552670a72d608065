"""The rules of the model chain that other tests build on."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.subtensor.blocks import ModuleError
from tests.support.subtensor.chain import Call, ChainBlock, Extrinsic, PoolRefusal, Subtensor
from tests.support.subtensor.genesis import BOB

NETUID = 9
_numbers = itertools.count(1)


def extrinsic(
    chain: Subtensor, signer: str, function: str, params: Mapping[str, Any], **changes: Any
) -> Extrinsic:
    module = "Commitments" if function == "set_commitment" else "SubtensorModule"
    nonce = changes.pop("nonce", chain.next_nonce(signer))
    call = Call(module, function, {"netuid": NETUID, **params})
    return Extrinsic(call, signer, nonce, changes.pop("era", None), f"0x{next(_numbers):064x}")


def send(chain: Subtensor, signer: str, function: str, params: Mapping[str, Any]) -> str | None:
    """The chain's name for the failure of a call in the next block; None if it succeeded."""
    sent = extrinsic(chain, signer, function, params)
    chain.submit(sent)
    return failure(chain.make_block(), sent)


def failure(block: ChainBlock, sent: Extrinsic) -> str | None:
    index = block.extrinsics.index(sent)
    for event in block.events:
        if event.extrinsic_index == index and event.name == "ExtrinsicFailed":
            assert isinstance(event.attributes, dict)
            error = event.attributes["dispatch_error"]
            assert isinstance(error, ModuleError)
            return error.name
    return None


def register(chain: Subtensor, hotkey: str, coldkey: str = "cold") -> str | None:
    return send(chain, coldkey, "burned_register", {"hotkey": hotkey})


def plain(weights: Mapping[int, int], version_key: int = 0) -> dict[str, Any]:
    row = {"dests": list(weights), "weights": list(weights.values())}
    return {"mecid": 0, **row, "version_key": version_key}


def committed(ciphertext: bytes) -> dict[str, Any]:
    return {"mecid": 0, "commit": ciphertext, "reveal_round": 7, "commit_reveal_version": 4}


def axon(ip: int, port: int = 8091) -> dict[str, Any]:
    rest = {"version": 1, "ip_type": 4, "protocol": 4, "placeholder1": 0, "placeholder2": 0}
    return {"ip": ip, "port": port, **rest}


def with_validator(**settings: Any) -> Subtensor:
    """A chain with a validator as uid 1 and miners as uids 2 and 3."""
    chain = Subtensor(**settings)
    chain.enroll("validator", "cold", stake=100.0, permit=True)
    chain.enroll("miner", "cold")
    chain.enroll("other", "cold")
    return chain


def row(chain: Subtensor, uid: int = 1) -> Any:
    return chain.value("SubtensorModule", "Weights", (NETUID, uid))


class TestRegistration:
    def test_it_burns_the_price_and_raises_it_for_the_next(self) -> None:
        chain = Subtensor()
        chain.fund("cold", 10)
        before = chain.value("SubtensorModule", "Burn", (NETUID,))
        assert register(chain, "hot") is None
        assert chain.uid("hot") == 1
        assert chain.value("SubtensorModule", "Owner", ("hot",)) == "cold"
        assert chain.value("SubtensorModule", "Burn", (NETUID,)) == pytest.approx(before * 1.26, rel=0.01)
        after = chain.value("System", "Account", ("cold",))
        assert after["data"]["free"] == pytest.approx(9.9e9, rel=0.001)
        chain.make_block(360)
        assert chain.value("SubtensorModule", "Burn", (NETUID,)) == pytest.approx(before * 0.63, rel=0.01)

    def test_its_refusals_bear_the_pallets_names(self) -> None:
        chain = Subtensor()
        chain.fund("cold", 10)
        chain.fund("poor", 0.05)
        chain.fund("rival", 10)
        assert register(chain, "hot") is None
        assert register(chain, "hot") == "HotKeyAlreadyRegisteredInSubNet"
        assert register(chain, "another", "poor") == "NotEnoughBalanceToStake"
        chain.enroll("settled", "cold")
        chain.prune(2, "usurper", "cold")
        assert register(chain, "settled", "rival") == "NonAssociatedColdKey"
        chain.edit_subnet("NetworkRegistrationAllowed", False)
        assert register(chain, "late") == "SubNetRegistrationDisabled"

    def test_a_full_subnet_gives_up_its_poorest_neuron_out_of_immunity(self) -> None:
        chain = Subtensor(max_uids=3, immunity_period=5)
        chain.fund("cold", 10)
        for hotkey in ("first", "second"):
            assert register(chain, hotkey) is None
        assert register(chain, "early") is None, "all are immune: the one registered first goes"
        assert chain.uid("first") is None
        chain.make_block(10)
        chain.edit_subnet("Emission", [0, 5, 3])
        assert register(chain, "late") is None
        assert (chain.uid("early"), chain.uid("second"), chain.uid("late")) == (1, None, 2)
        assert chain.uid(BOB) == 0, "the owner stays"

    def test_without_money_for_the_fee_it_does_not_even_get_into_the_pool(self) -> None:
        chain = Subtensor()
        with pytest.raises(PoolRefusal, match="Inability to pay some fees"):
            register(chain, "hot")


class TestServingAndCommitments:
    def test_an_address_is_stored_and_cannot_be_changed_at_once(self) -> None:
        chain = with_validator(serving_rate_limit=5)
        assert send(chain, "miner", "serve_axon", axon(0x01020304)) is None
        stored = chain.value("SubtensorModule", "Axons", (NETUID, "miner"))
        assert (stored["ip"], stored["port"], stored["block"]) == (0x01020304, 8091, chain.head.number)
        with pytest.raises(PoolRefusal, match="Custom error: 12"):
            send(chain, "miner", "serve_axon", axon(0x01020305))
        chain.make_block(4)
        assert send(chain, "miner", "serve_axon", axon(0x01020305)) is None

    @pytest.mark.parametrize(
        ("signer", "ip", "port", "number"),
        [("miner", 0x7F000001, 80, 11), ("miner", 0x01020304, 0, 13), ("stranger", 0x01020304, 80, 10)],
    )
    def test_bad_addresses_do_not_get_into_the_pool(
        self, signer: str, ip: int, port: int, number: int
    ) -> None:
        with pytest.raises(PoolRefusal, match=f"Custom error: {number}$"):
            send(with_validator(), signer, "serve_axon", axon(ip, port))

    def test_commitments_have_a_budget_for_each_epoch(self) -> None:
        chain = with_validator(tempo=50)
        chain.edit("Commitments", "MaxSpace", (), 250)
        info = {"info": {"fields": [{"Raw3": b"abc"}]}}
        assert send(chain, "miner", "set_commitment", info) is None
        stored = chain.value("Commitments", "CommitmentOf", (NETUID, "miner"))
        assert stored["info"]["fields"] == [{"Raw3": "0x616263"}]
        assert stored["block"] == chain.head.number
        assert send(chain, "miner", "set_commitment", info) is None
        assert send(chain, "miner", "set_commitment", info) == "SpaceLimitExceeded"
        chain.make_epoch()
        assert send(chain, "miner", "set_commitment", info) is None
        chain.fund("stranger", 1)
        assert send(chain, "stranger", "set_commitment", info) == "AccountNotAllowedCommit"

    def test_the_coldkey_pays_for_its_hotkeys_where_the_chain_takes_a_fee(self) -> None:
        chain = with_validator(hotkey_fees=True)
        with pytest.raises(PoolRefusal, match="Inability to pay"):
            send(chain, "miner", "serve_axon", axon(0x01020304))
        chain.fund("cold", 1)
        assert send(chain, "miner", "serve_axon", axon(0x01020304)) is None
        paid = chain.value("System", "Account", ("cold",))
        assert paid["data"]["free"] < 1e9


class TestWeights:
    def test_they_are_scaled_to_the_greatest_and_limited_in_rate(self) -> None:
        chain = with_validator(weights_rate_limit=10)
        assert send(chain, "validator", "set_mechanism_weights", plain({2: 10, 3: 40})) is None
        assert row(chain) == [(2, 16384), (3, 65535)]
        with pytest.raises(PoolRefusal, match="Custom error: 6"):
            send(chain, "validator", "set_mechanism_weights", plain({2: 1}))
        chain.make_block(9)
        assert send(chain, "validator", "set_mechanism_weights", plain({2: 1})) is None

    @pytest.mark.parametrize(
        ("signer", "params", "name"),
        [
            ("miner", plain({3: 1}), "NeuronNoValidatorPermit"),
            ("validator", plain({9: 1}), "UidVecContainInvalidOne"),
            ("validator", plain({2: 1}, version_key=4), "IncorrectWeightVersionKey"),
            ("validator", {**plain({2: 1}), "dests": [2, 2], "weights": [1, 1]}, "DuplicateUids"),
            ("stranger", plain({2: 1}), "HotKeyNotRegisteredInSubNet"),
            ("validator", {**plain({2: 1}), "mecid": 1}, "MechanismDoesNotExist"),
            ("validator", {**plain({2: 1}), "netuid": 8}, "MechanismDoesNotExist"),
        ],
    )
    def test_their_refusals_bear_the_pallets_names(
        self, signer: str, params: Mapping[str, Any], name: str
    ) -> None:
        chain = with_validator(weights_version=5 if name == "IncorrectWeightVersionKey" else 0)
        assert send(chain, signer, "set_mechanism_weights", params) == name
        assert row(chain) is None

    def test_neither_the_owner_nor_a_weight_for_oneself_needs_a_permit(self) -> None:
        chain = with_validator(weights_rate_limit=0)
        assert send(chain, BOB, "set_mechanism_weights", plain({2: 1, 3: 1})) is None
        assert send(chain, "miner", "set_mechanism_weights", plain({2: 1})) is None

    def test_a_uid_pruned_before_the_block_makes_the_row_a_strangers(self) -> None:
        chain = with_validator()
        sent = extrinsic(chain, "validator", "set_mechanism_weights", plain({2: 1}))
        chain.submit(sent)
        chain.prune(1, "newcomer", "cold")
        assert failure(chain.make_block(), sent) == "HotKeyNotRegisteredInSubNet"

    def test_too_little_stake_keeps_them_out_of_the_pool(self) -> None:
        chain = with_validator(stake_threshold_tao=1000.0)
        with pytest.raises(PoolRefusal, match=r"Custom error: 1$"):
            send(chain, "validator", "set_mechanism_weights", plain({2: 1}))
        chain.make_epoch()
        assert not any(chain.value("SubtensorModule", "ValidatorPermit", (NETUID,)))

    def test_an_epoch_pays_for_them_and_gives_permits_by_stake(self) -> None:
        chain = with_validator(tempo=10)
        chain.stake("miner", 1)
        send(chain, "validator", "set_mechanism_weights", plain({1: 9, 2: 3, 3: 1}))
        chain.make_epoch()
        graph = chain.runtime_call("SubnetInfoRuntimeApi", "get_metagraph", [NETUID])
        assert graph["incentives"][2:] == [pytest.approx(49151, abs=2), pytest.approx(16383, abs=2)]
        assert graph["dividends"][1] == 65535
        assert graph["validator_permit"] == [False, True, True, False]
        assert chain.value("SubtensorModule", "SubnetEpochIndex", (NETUID,)) == 1
        assert chain.runtime_call("SubnetInfoRuntimeApi", "get_next_epoch_start_block", [NETUID]) == 20

    def test_a_validator_without_new_weights_stops_counting(self) -> None:
        chain = with_validator(tempo=10, activity_cutoff_milli=1500)
        send(chain, "validator", "set_mechanism_weights", plain({2: 1}))
        chain.make_epoch()
        assert chain.value("SubtensorModule", "Incentive", (NETUID,))[2] == 65535
        chain.make_block(20)
        assert chain.value("SubtensorModule", "Incentive", (NETUID,))[2] == 0


class TestTimelockedWeights:
    def test_they_act_one_epoch_later_and_not_before(self) -> None:
        chain = with_validator(tempo=10, commit_reveal=True)
        assert send(chain, "validator", "set_mechanism_weights", plain({2: 1})) == "CommitRevealEnabled"
        assert send(chain, "validator", "commit_timelocked_mechanism_weights", committed(b"1")) is None
        block = chain.head.number
        queue = chain.value("SubtensorModule", "TimelockedWeightCommits", (NETUID, 0))
        assert queue == [("validator", block, "0x31", 7)]
        assert chain.value("SubtensorModule", "LastUpdate", (NETUID,))[1] == block
        assert chain.reveal("validator", {2: 65535}) == 1
        assert chain.make_block(9 - block).number == 9
        assert row(chain) is None
        assert chain.make_block().number == 10
        assert row(chain) == [(2, 65535)]
        assert chain.entries("SubtensorModule", "TimelockedWeightCommits") == []
        assert chain.value("SubtensorModule", "LastUpdate", (NETUID,))[1] == block

    def test_a_newcomer_at_a_uid_is_not_paid_for_what_was_committed_before_it(self) -> None:
        chain = with_validator(tempo=10, commit_reveal=True)
        send(chain, "validator", "commit_timelocked_mechanism_weights", committed(b"1"))
        chain.make_block()
        chain.prune(2, "newcomer", "cold")
        chain.reveal("validator", {2: 1, 3: 1})
        chain.make_epoch()
        assert row(chain) == [(2, 65535), (3, 65535)]
        assert chain.value("SubtensorModule", "Incentive", (NETUID,))[2:] == [0, 65535]

    def test_a_late_beacon_is_waited_for_until_the_epoch_is_over(self) -> None:
        chain = with_validator(tempo=10, commit_reveal=True)
        send(chain, "validator", "commit_timelocked_mechanism_weights", committed(b"1"))
        chain.make_epoch()
        chain.make_block(3)
        assert chain.reveal("validator", {2: 1}) == 1
        chain.make_block()
        assert row(chain) == [(2, 65535)]
        chain.make_block(3)
        send(chain, "validator", "commit_timelocked_mechanism_weights", committed(b"2"))
        chain.make_epoch()
        chain.make_epoch()
        assert chain.reveal("validator", {3: 1}) == 0, "the commit is gone"

    @pytest.mark.parametrize("trouble", ["permit", "version", "uid"])
    def test_what_the_rules_refuse_at_the_reveal_is_dropped_in_silence(self, trouble: str) -> None:
        chain = with_validator(tempo=10, commit_reveal=True)
        send(chain, "validator", "commit_timelocked_mechanism_weights", committed(b"1"))
        chain.reveal("validator", {7 if trouble == "uid" else 2: 1})
        if trouble == "permit":
            chain.permit("validator", False)
        if trouble == "version":
            chain.edit_subnet("WeightsVersionKey", 9)
        block = chain.make_epoch()
        assert row(chain) is None
        assert not [event for event in block.events if event.name == "TimelockedWeightsRevealed"]

    def test_commits_are_limited_in_rate_by_the_block_not_by_the_pool(self) -> None:
        chain = with_validator(commit_reveal=True)
        send(chain, "validator", "commit_timelocked_mechanism_weights", committed(b"1"))
        again = send(chain, "validator", "commit_timelocked_mechanism_weights", committed(b"2"))
        assert again == "CommittingWeightsTooFast"
        chain.edit_subnet("WeightsSetRateLimit", 0)
        more = [
            send(chain, "validator", "commit_timelocked_mechanism_weights", committed(bytes([n])))
            for n in range(10)
        ]
        assert more == [None] * 9 + ["TooManyUnrevealedCommits"]


class TestBlocksAndPool:
    def test_a_reorganisation_puts_extrinsics_back_or_loses_them(self) -> None:
        chain = with_validator(finality_lag=3)
        sent = extrinsic(chain, "validator", "set_mechanism_weights", plain({2: 1}))
        chain.submit(sent)
        dead = chain.make_block()
        assert chain.reorganise(1) == ()
        assert chain.head.number == dead.number
        assert chain.head.hash != dead.hash
        assert chain.block(dead.hash) == dead
        assert (row(chain), chain.find(sent.hash)) == (None, None)
        assert chain.next_nonce("validator") == 1, "it waits in the pool"
        chain.make_block()
        assert row(chain) == [(2, 65535)]
        assert chain.reorganise(1, lose=True) == (sent,)
        chain.make_block()
        assert row(chain) is None

    def test_finalized_blocks_stay(self) -> None:
        chain = Subtensor(finality_lag=2)
        final = chain.finalized
        with pytest.raises(ValueError, match="2 unfinalized"):
            chain.reorganise(3)
        chain.reorganise(2)
        assert chain.finalized == final
        chain.finality_stalled = True
        chain.make_block(5)
        assert chain.finalized == final

    def test_history_is_kept(self) -> None:
        chain = with_validator()
        old = chain.head.hash
        send(chain, "validator", "set_mechanism_weights", plain({2: 1}))
        assert chain.value("SubtensorModule", "Weights", (NETUID, 1), old) is None
        assert chain.entries("SubtensorModule", "Weights", (NETUID,)) == [((NETUID, 1), [(2, 65535)])]
        assert chain.head.time_ms - chain.block(chain.head.number - 1).time_ms == 12_000  # type: ignore[union-attr]

    def test_set_up_holds_for_every_block_that_is_not_final_yet(self) -> None:
        chain = Subtensor(finality_lag=2)
        for _ in range(3):
            chain.fund("cold", 1)
            chain.make_block()
        balances = [
            chain.value("System", "Account", ("cold",), block.hash)["data"]["free"]
            for block in (chain.finalized, chain.head)
        ]
        assert balances == [3_000_000_000, 3_000_000_000]

    def test_the_pool_takes_a_nonce_once_and_no_more_than_it_holds(self) -> None:
        chain = with_validator(pool_limit=1)
        first = extrinsic(chain, "miner", "serve_axon", axon(1))
        chain.submit(first)
        with pytest.raises(PoolRefusal, match="already imported"):
            chain.submit(first)
        with pytest.raises(PoolRefusal, match="Priority is too low"):
            chain.submit(extrinsic(chain, "miner", "serve_axon", axon(2), nonce=0))
        with pytest.raises(PoolRefusal, match="Immediately Dropped") as full:
            chain.submit(extrinsic(chain, "other", "serve_axon", axon(2)))
        assert full.value.code == 1016
        chain.make_block()
        with pytest.raises(PoolRefusal, match="outdated"):
            chain.submit(first)

    def test_what_waits_too_long_is_dropped(self) -> None:
        chain = with_validator()
        head = chain.head.number
        sent = extrinsic(chain, "miner", "serve_axon", axon(1), nonce=3, era=(head, head + 8))
        chain.submit(sent)
        chain.make_block(7)
        assert sent.hash not in chain.dropped, "its nonce is too high yet"
        chain.make_block()
        assert chain.dropped[sent.hash].data == "Transaction has an ancient birth block"
        assert chain.pool.waiting == []
