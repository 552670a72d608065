"""Shares cover their plan, one root stands for one plan, and a proof covers its share alone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from iota.objects import max_plan_bytes
from iota.protocol.merkle import merkle_root
from iota.protocol.plans import PlanShare, WholePlan, signed_root
from iota.simulate.names import fake_hotkey
from iota.spec import Pipeline
from tests.support.plans import share_of, whole_plan
from tests.support.virtual_runs import tiny_spec

ONE, TWO, THREE, STRANGER = sorted(fake_hotkey(n) for n in range(4))


@st.composite
def plans(draw: st.DrawFn) -> WholePlan:
    """Any plan: each stage has its own replicas, each of which has work."""
    stages, count = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    numbers = iter(draw(st.permutations(range(stages * count))))
    columns = []
    for _ in range(stages):
        replicas = [fake_hotkey(next(numbers)) for _ in range(draw(st.integers(1, count)))]
        columns.append([draw(st.sampled_from(replicas)) for _ in range(count)])
    members = tuple(sorted({hotkey for column in columns for hotkey in column}))
    return WholePlan(
        epoch=draw(st.integers(0, 3)),
        step=draw(st.integers(0, 3)),
        learning_rate=draw(st.floats(0, 1)),
        members=members,
        routes=tuple(tuple(map(members.index, route)) for route in zip(*columns, strict=True)),
    )


@given(plans())
def test_shares_cover_each_microbatch_once_at_each_stage_and_neighbours_agree(plan: WholePlan) -> None:
    stages = len(plan.routes[0])
    found = {(s.stage, m.microbatch): (s.hotkey, m) for s in plan.shares() for m in s.microbatches}
    assert sum(len(share.microbatches) for share in plan.shares()) == len(found) == len(plan.routes) * stages
    for index in range(len(plan.routes)):
        chain = [found[stage, index] for stage in range(stages)]
        assert tuple(hotkey for hotkey, _ in chain) == plan.route(index)
        assert [planned.before for _, planned in chain] == [None, *plan.route(index)[:-1]]
        assert [planned.after for _, planned in chain] == [*plan.route(index)[1:], None]


@given(plans())
def test_the_root_is_that_over_the_shares_and_covers_each_of_them(plan: WholePlan) -> None:
    shares = list(plan.shares())
    assert plan.root() == merkle_root([share.digest() for share in shares])
    assert len({share.hotkey for share in shares}) == len(shares) == len(plan.members)
    for share in shares:
        event = share_of(plan, share.hotkey)
        assert event.share == share
        assert event.proof.root == plan.root()
        assert event.proof.covers(share)


@given(plans(), plans())
def test_two_plans_have_two_roots(one: WholePlan, other: WholePlan) -> None:
    assert (one == other) == (one.root() == other.root())


@given(plans(), st.data())
def test_a_plan_that_differs_in_one_thing_has_another_root(plan: WholePlan, data: st.DataObject) -> None:
    at, stage = (
        data.draw(st.integers(0, len(plan.routes) - 1)),
        data.draw(st.integers(0, len(plan.routes[0]) - 1)),
    )
    route = list(plan.routes[at])
    route[stage] = data.draw(st.sampled_from([route[stage] for route in plan.routes]))
    assume(route[stage] != plan.routes[at][stage])
    changes: dict[str, Any] = {"routes": (*plan.routes[:at], tuple(route), *plan.routes[at + 1 :])}
    changed = plan.model_copy(update=changes)
    assert changed.root() != plan.root()
    more = plan.model_copy(update={"routes": (*plan.routes, plan.routes[at])})
    assert more.root() != plan.root()


@given(plans())
def test_a_plan_keeps_its_root_on_its_way_through_the_store(plan: WholePlan) -> None:
    assert WholePlan.model_validate_json(plan.model_dump_json()).root() == plan.root()


@pytest.mark.parametrize("stages", [1, 4])
def test_a_plan_that_gives_each_op_to_another_replica_is_within_its_bound(stages: int) -> None:
    count = 2000
    members = [f"5{n:047d}".replace("0", "z") for n in range(stages * count)]
    plan = WholePlan(
        epoch=2**31 - 1,
        step=2**31 - 1,
        learning_rate=1.2345678901234567e-300,
        members=tuple(sorted(members)),
        routes=tuple(tuple(range(n * stages, (n + 1) * stages)) for n in range(count)),
    )
    spec = tiny_spec(
        stages=stages, replicas=1, epochs=1, steps=1, microbatches=count, pipeline=Pipeline.SYNC, credit=1
    )
    assert len(plan.model_dump_json()) <= max_plan_bytes(spec)


PLAN: dict[str, Any] = whole_plan((ONE, TWO), 2).model_dump()


@pytest.mark.parametrize(
    "change",
    [
        {"routes": ()},
        {"routes": ((), ())},
        {"members": (TWO, ONE)},
        {"members": (ONE, ONE)},
        {"members": (ONE, TWO, THREE)},
        {"members": (ONE,)},
        {"routes": ((0, 1), (0,))},
        {"routes": ((0, 1), (0, 2))},
        {"routes": ((0, 1), (1, 0))},
        {"routes": ((0, 0), (0, 0))},
        {"routes": ((0, -1), (0, 1))},
        {"learning_rate": float("nan")},
    ],
    ids=range(12),
)
def test_a_plan_has_no_second_form(change: dict[str, Any]) -> None:
    assert WholePlan.model_validate(PLAN)
    with pytest.raises(ValidationError):
        WholePlan.model_validate({**PLAN, **change})


EVENT = share_of(whole_plan((ONE, TWO, THREE), 3, epoch=1, step=2), TWO)
"""Of three shares, so that a path has two digests."""
SECOND = EVENT.share.microbatches[1]


def _with(**changes: Any) -> PlanShare:
    planned = (EVENT.share.microbatches[0], SECOND._replace(**changes), EVENT.share.microbatches[2])
    return EVENT.share.model_copy(update={"microbatches": planned})


@pytest.mark.parametrize(
    "share",
    [
        EVENT.share.model_copy(update={"epoch": 2}),
        EVENT.share.model_copy(update={"step": 1}),
        EVENT.share.model_copy(update={"learning_rate": 0.1 + 2**-55}),
        EVENT.share.model_copy(update={"stage": 2}),
        EVENT.share.model_copy(update={"hotkey": STRANGER}),
        EVENT.share.model_copy(update={"microbatches": EVENT.share.microbatches[:2]}),
        EVENT.share.model_copy(update={"microbatches": EVENT.share.microbatches[::-1]}),
        EVENT.share.model_copy(update={"microbatches": (*EVENT.share.microbatches, SECOND)}),
        _with(microbatch=3),
        _with(before=None),
        _with(before=STRANGER),
        _with(after=None),
        _with(after=STRANGER),
        _with(before=SECOND.after, after=SECOND.before),
    ],
    ids=range(14),
)
def test_a_proof_covers_no_share_but_its_own(share: PlanShare) -> None:
    assert EVENT.proof.covers(EVENT.share)
    assert share != EVENT.share
    assert not EVENT.proof.covers(share)


@pytest.mark.parametrize(
    "change",
    [
        {"root": "0" * 64},
        {"at": 0},
        {"at": 2},
        {"at": 3},
        {"count": 1},
        {"count": 2},
        {"count": 5},
        {"path": ()},
        {"path": EVENT.proof.path[:1]},
        {"path": EVENT.proof.path[::-1]},
        {"path": (*EVENT.proof.path, "0" * 64)},
        {"path": ("0" * 64,) * 33},
    ],
    ids=range(12),
)
def test_a_proof_at_another_place_or_by_another_way_covers_nothing(change: dict[str, Any]) -> None:
    assert not EVENT.proof.model_copy(update=change).covers(EVENT.share)


def test_the_signed_text_differs_for_another_run_epoch_step_root_or_number_of_shares() -> None:
    proof = EVENT.proof
    texts = {
        signed_root("a" * 64, 1, 2, proof),
        signed_root("b" * 64, 1, 2, proof),
        signed_root("a" * 64, 2, 2, proof),
        signed_root("a" * 64, 1, 3, proof),
        signed_root("a" * 64, 1, 2, proof.model_copy(update={"root": "0" * 64})),
        # The first path of a tree of three is the same way as that of a tree of four.
        signed_root("a" * 64, 1, 2, proof.model_copy(update={"count": 4})),
    }
    assert len(texts) == 6
