"""When weights are due, what became of a plan, and why a row is not in force, from values alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iota.chain import Block, EpochStatus, Neuron, Subnet, TxMode
from validator.weights.decisions import LATE_TEMPOS, LastWeights, Step, due, fate, landed_state, likely_cause
from validator.weights.plan import PlanState, Target, WeightPlan, allot, same_row

ME = Neuron(2, "me", "cold", 100.0, True, 0.0, 0.0, last_update=50, registered_at=50)
MINER = replace(ME, uid=1, hotkey="miner", validator_permit=False)
OWNER = replace(MINER, uid=0, hotkey="owner")


def subnet(at: int = 1000, *neurons: Neuron, **changes: object) -> Subnet:
    whole = Subnet(
        netuid=9, block=Block(at, "0x00", 0.0), tempo=360, owner_uid=0, neurons=neurons or (OWNER, MINER, ME),
        max_uids=256, weights_rate_limit=100, commit_reveal=False, weights_version=0, activity_cutoff=5000,
    )  # fmt: skip
    return replace(whole, **changes)  # type: ignore[arg-type]


def status(block: int, index: int, last: int, tempo: int = 360) -> EpochStatus:
    return EpochStatus(9, block, tempo, index, last, last + tempo, 0.0)


def plan(**changes: object) -> WeightPlan:
    targets = {1: Target("miner", 65535), 0: Target("owner", 100)}
    whole = WeightPlan("0x", 5, 1000, 50, {"miner": 1.0}, targets, 0, planned_s=0.0, number=1)
    return replace(whole, **changes)  # type: ignore[arg-type]


# ---- due ------------------------------------------------------------------------------------------


def test_a_tempo_without_weights_gets_some() -> None:
    assert due(status(1000, 3, 900), subnet(), ME, LastWeights()).step is Step.SET


def test_a_tempo_with_weights_waits_for_the_next() -> None:
    found = due(status(1000, 3, 900), subnet(), replace(ME, last_update=950), LastWeights())
    assert (found.step, found.blocks) == (Step.WAIT, 260)


def test_the_own_record_counts_while_the_metagraph_lags() -> None:
    assert due(status(1000, 3, 900), subnet(998), ME, LastWeights(3, 999)).step is Step.WAIT


def test_the_index_decides_and_not_the_block_number() -> None:
    assert due(status(1000, 3, 900), subnet(), ME, LastWeights(3, 899)).step is Step.WAIT
    assert due(status(1000, 4, 900), subnet(), ME, LastWeights(3, 899)).blocks == 0


def test_the_rate_limit_is_waited_out_to_the_block() -> None:
    late = replace(ME, last_update=950)
    found = due(status(1010, 3, 1000), subnet(1010), late, LastWeights())
    assert (found.step, found.blocks, found.why) == (Step.WAIT, 39, "the rate limit")
    assert due(status(1049, 3, 1000), subnet(1049), late, LastWeights()).step is Step.SET


def test_a_tempo_longer_than_the_cut_off_is_not_waited_for() -> None:
    short = subnet(activity_cutoff=200)
    recent = replace(ME, last_update=900)
    assert due(status(1049, 3, 890), short, recent, LastWeights()).blocks == 1
    assert due(status(1050, 3, 890), short, recent, LastWeights()).step is Step.SET


def test_the_end_of_a_tempo_is_left_alone() -> None:
    found = due(status(1258, 3, 900), subnet(1258), ME, LastWeights())
    assert (found.step, found.blocks) == (Step.WAIT, 3)


def test_nothing_is_sent_while_the_fate_of_a_plan_is_open() -> None:
    assert due(status(1000, 3, 900), subnet(), ME, LastWeights(unresolved=True)).step is Step.WAIT


@pytest.mark.parametrize(
    ("neuron", "remedy"),
    [(None, "iota-validator register"), (replace(ME, validator_permit=False), "needs more stake")],
)
def test_who_may_not_set_weights_is_told_why(neuron: Neuron | None, remedy: str) -> None:
    found = due(status(1000, 3, 900), subnet(), neuron, LastWeights())
    assert found.step is Step.CANNOT
    assert remedy in found.why


def test_a_new_registration_starts_anew() -> None:
    again = replace(ME, registered_at=950, last_update=950)
    found = due(status(1040, 3, 900), subnet(1040), again, LastWeights(3, 940))
    assert (found.step, found.why) == (Step.WAIT, "the rate limit")
    assert due(status(1049, 3, 900), subnet(1049), again, LastWeights(3, 940)).step is Step.SET


@given(
    tempo=st.integers(10, 400),
    limit=st.integers(0, 300),
    cutoff=st.integers(40, 6000),
    lag=st.integers(0, 5),
    landing=st.integers(1, 2),
    start=st.integers(0, 399),
)
def test_whoever_follows_it_serves_each_tempo_once_and_stays_active(
    tempo: int, limit: int, cutoff: int, lag: int, landing: int, start: int
) -> None:
    """A chain of twelve tempos; writes land after `landing` blocks, the metagraph lags by `lag`."""
    landed: list[int] = []
    block, own = start % tempo, LastWeights()
    while block < 12 * tempo:
        seen = [b for b in landed if b <= block - lag]
        me = replace(ME, registered_at=0, last_update=seen[-1] if seen else 0)
        where = subnet(
            max(0, block - lag), OWNER, MINER, me, weights_rate_limit=limit, activity_cutoff=cutoff
        )
        index = block // tempo
        found = due(status(block, index, index * tempo, tempo), where, me, own)
        if found.step is Step.WAIT:
            assert found.blocks > 0
            block += found.blocks
            continue
        assert found.step is Step.SET
        assert not landed or block + 1 >= landed[-1] + limit
        landed.append(block + landing)
        own = LastWeights(index, block + landing)
        block += landing
    gaps = [b - a for a, b in pairwise(landed)]
    assert all(gap >= limit for gap in gaps)
    assert all(gap <= max(cutoff, limit + 10) for gap in gaps)
    if cutoff >= 3 * tempo and limit < tempo * 8 // 10:
        tempos = [b // tempo for b in landed]
        assert tempos == list(range(tempos[0], tempos[0] + len(tempos)))


# ---- what became of a plan ------------------------------------------------------------------------


def test_newer_weights_than_before_are_the_plan_s_own() -> None:
    assert fate(plan(), subnet(1001), replace(ME, last_update=1001), 10) == (PlanState.LANDED, 1001)


def test_a_plan_is_lost_only_when_it_can_land_no_more() -> None:
    assert fate(plan(), subnet(1010), ME, 10) == (PlanState.PLANNED, None)
    assert fate(plan(), subnet(1011), ME, 10) == (PlanState.LOST, None)


def test_a_registration_is_not_taken_for_weights() -> None:
    again = replace(ME, last_update=1005, registered_at=1005)
    assert fate(plan(), subnet(1006), again, 10)[0] is PlanState.PLANNED


def test_an_accepted_plan_that_a_reorganisation_dropped_is_lost() -> None:
    accepted = plan(state=PlanState.ACCEPTED, block=1001)
    assert fate(accepted, subnet(1005), ME, 10) == (PlanState.ACCEPTED, 1001)
    assert fate(accepted, subnet(1011), ME, 10) == (PlanState.LOST, None)


LANDED = plan(state=PlanState.LANDED, block=1001, mode=TxMode.PLAIN)
HIDDEN = replace(LANDED, mode=TxMode.COMMIT)


def test_a_row_that_differs_by_rounding_is_in_force() -> None:
    assert (
        landed_state(LANDED, {1: 65535, 0: 101}, [], status(1002, 5, 900), subnet(), True)
        is PlanState.IN_FORCE
    )
    assert same_row({1: 65535}, {1: 65535, 0: 1})
    assert not same_row({1: 65535, 0: 102}, LANDED.row)


def test_a_plain_row_must_show_once_it_is_settled() -> None:
    assert landed_state(LANDED, None, [], status(1002, 5, 900), subnet(), False) is PlanState.LANDED
    assert landed_state(LANDED, None, [], status(1002, 5, 900), subnet(), True) is PlanState.NOT_IN_FORCE


def test_a_commit_has_some_tempos_to_show() -> None:
    for hidden_for in (1, 7):
        chain = subnet(reveal_tempos=hidden_for)
        last = 5 + hidden_for + LATE_TEMPOS
        assert landed_state(HIDDEN, {1: 1}, [], status(0, last, 0), chain, True) is PlanState.LANDED
        assert landed_state(HIDDEN, {1: 1}, [], status(0, last + 1, 0), chain, True) is PlanState.NOT_IN_FORCE


def test_a_later_row_in_force_supersedes() -> None:
    later = replace(HIDDEN, number=2, targets={1: Target("miner", 65535)})
    assert landed_state(HIDDEN, {1: 65535}, [later], status(0, 6, 0), subnet(), True) is PlanState.SUPERSEDED


@pytest.mark.parametrize(
    ("where", "cause"),
    [
        (subnet(1, OWNER, MINER), "no longer registered"),
        (subnet(1, OWNER, MINER, replace(ME, validator_permit=False)), "lost its validator permit"),
        (subnet(weights_version=7), "version key rose from 0 to 7"),
        (subnet(1, OWNER, replace(MINER, hotkey="newcomer"), ME), "uid 1 changed hands"),
        (subnet(), "not revealed within 4 tempos"),
    ],
)
def test_the_likely_cause_is_named(where: Subnet, cause: str) -> None:
    assert cause in likely_cause(HIDDEN, where, where.neuron("me"))


def test_a_plain_row_that_somebody_else_replaced_is_told_as_such() -> None:
    assert "somebody else writes" in likely_cause(LANDED, subnet(), ME)


# ---- who gets what --------------------------------------------------------------------------------


def test_the_owner_s_share_is_what_the_run_says_though_miners_left() -> None:
    found = allot(subnet(), {"miner": 0.2, "gone": 0.6}, 0.2)
    assert found is not None
    assert found.gone == ("gone",)
    assert {uid: t.hotkey for uid, t in found.targets.items()} == {0: "owner", 1: "miner"}
    assert found.targets[0].weight / found.targets[1].weight == pytest.approx(0.25, abs=1e-4)


def test_a_share_without_an_owner_goes_to_the_miners() -> None:
    found = allot(subnet(owner_uid=None), {"miner": 0.8}, 0.2)
    assert found is not None
    assert found.targets == {1: Target("miner", 65535)}


def test_the_owner_gets_all_where_nobody_has_a_score() -> None:
    found = allot(subnet(), {"miner": 0.0}, 0.2)
    assert found is not None
    assert found.targets == {0: Target("owner", 65535)}
    assert allot(subnet(), {"miner": 0.0}, 0.0) is None
