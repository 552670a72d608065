"""The ledger's pure rules: weights, permits, pruning, and Yuma's epoch."""

import bittensor
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota.chain import BadInput
from iota.chain.ledger import rules
from iota.chain.ledger.clock import BlockClock
from iota.chain.ledger.parameters import LedgerParameters
from iota.chain.ledger.yuma import yuma
from iota.chain.weight_rules import normalise

UIDS = tuple(range(8))
uids = st.sampled_from(UIDS)
weight_rows = st.dictionaries(uids, st.floats(0, 1e6), max_size=8)
stakes = st.dictionaries(uids, st.floats(0.001, 1e9), max_size=4)


@given(st.dictionaries(st.integers(0, 65535), st.floats(0, 1e9), min_size=1, max_size=40))
def test_weights_are_normalised_as_the_sdk_does(weights: dict[int, float]) -> None:
    expected = bittensor.intents.normalize(sorted(weights), [weights[uid] for uid in sorted(weights)])
    if not expected[0]:
        with pytest.raises(BadInput):
            normalise(weights)
    else:
        assert normalise(weights) == dict(zip(*expected, strict=True))


@given(st.dictionaries(uids, st.integers(1, 65535), min_size=1))
def test_normalising_twice_changes_nothing(weights: dict[int, int]) -> None:
    once = normalise(weights)
    assert normalise(once) == once


def test_the_greatest_stakes_get_the_permits() -> None:
    assert rules.permits({0: 0.0, 1: 5.0, 2: 9.0, 3: 5.0}, 2) == {1, 2}
    assert rules.permits({0: 0.0}, 2) == frozenset()


@pytest.mark.parametrize(("block", "wait"), [(5, 10), (14, 1), (15, 0), (99, 0)])
def test_a_rate_limit_ends_after_its_blocks(block: int, wait: int) -> None:
    assert rules.blocks_to_wait(5, block, 10) == wait


def test_the_one_that_earned_least_goes_and_of_equals_the_oldest() -> None:
    earned = {0: 0.0, 1: 0.3, 2: 0.1, 3: 0.1}
    assert rules.uid_to_prune(earned, {0: 0, 1: 1, 2: 3, 3: 2}, 100, 10, owner_uid=0) == 3


def test_the_immune_and_the_owner_never_go() -> None:
    earned = {0: 0.0, 1: 0.9, 2: 0.0}
    assert rules.uid_to_prune(earned, {0: 0, 1: 5, 2: 95}, 100, 10, owner_uid=0) == 1
    assert rules.uid_to_prune(earned, {0: 0, 1: 95, 2: 95}, 100, 10, owner_uid=0) is None


@given(stakes, st.dictionaries(uids, weight_rows))
def test_incentives_and_dividends_are_shares(
    staked: dict[int, float], weights: dict[int, dict[int, float]]
) -> None:
    result = yuma(staked, weights, UIDS)
    for shares in (result.incentive, result.dividends):
        assert set(shares) == set(UIDS)
        assert all(0 <= share <= 1 + 1e-9 for share in shares.values())
        assert sum(shares.values()) == pytest.approx(1) or sum(shares.values()) == 0


@given(st.floats(0.001, 1e9), weight_rows)
def test_a_sole_validators_weights_are_the_incentives(stake: float, row: dict[int, float]) -> None:
    integers = {uid: float(round(weight)) for uid, weight in row.items()}
    total = sum(integers.values())
    incentive = yuma({7: stake}, {7: integers}, UIDS).incentive
    for uid in UIDS:
        assert incentive[uid] == pytest.approx(integers.get(uid, 0) / total if total else 0)


@given(stakes, st.dictionaries(uids, weight_rows), uids)
def test_a_miner_that_nobody_weighs_gets_nothing(
    staked: dict[int, float], weights: dict[int, dict[int, float]], miner: int
) -> None:
    silent = {v: {uid: w for uid, w in row.items() if uid != miner} for v, row in weights.items()}
    assert yuma(staked, silent, UIDS).incentive[miner] == 0


@given(stakes, st.dictionaries(uids, weight_rows))
def test_who_has_no_stake_moves_nothing(
    staked: dict[int, float], weights: dict[int, dict[int, float]]
) -> None:
    heard = {v: row for v, row in weights.items() if v in staked}
    assert yuma(staked, weights, UIDS) == yuma(staked, heard, UIDS)


def test_a_minority_cannot_pay_its_friend() -> None:
    honest, liar = {3: 1.0}, {4: 1.0}
    incentive = yuma({0: 40.0, 1: 30.0, 2: 30.0}, {0: honest, 1: honest, 2: liar}, UIDS).incentive
    assert (incentive[3], incentive[4]) == (1.0, 0.0)


def test_weight_above_the_majoritys_earns_nothing_more() -> None:
    rows = {0: {3: 1.0, 4: 1.0}, 1: {3: 1.0, 4: 1.0}, 2: {3: 0.0, 4: 1.0}}
    incentive = yuma({0: 1.0, 1: 1.0, 2: 1.0}, rows, UIDS).incentive
    assert incentive[3] == pytest.approx(0.4)
    assert incentive[4] == pytest.approx(0.6)


def test_who_agrees_with_the_majority_earns_the_dividends() -> None:
    honest, liar = {3: 1.0}, {4: 1.0}
    dividends = yuma({0: 40.0, 1: 30.0, 2: 30.0}, {0: honest, 1: honest, 2: liar}, UIDS).dividends
    assert dividends[0] == pytest.approx(4 / 7)
    assert dividends[2] == 0


@given(st.integers(0, 10**7), st.floats(0.001, 3600))
def test_a_block_begins_when_its_number_comes(number: int, block_time_s: float) -> None:
    clock = BlockClock(1_800_000_000.0, block_time_s)
    assert clock.number(clock.start(number)) == number
    assert clock.number(clock.start(number) + block_time_s / 2) == number


@pytest.mark.parametrize(
    "wrong", [{"tempo": 0}, {"netuid": 0}, {"block_time_s": 0.0}, {"max_uids": 1}, {"faucet_stake": -1.0}]
)
def test_impossible_parameters_are_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LedgerParameters(**wrong)
