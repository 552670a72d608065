"""A record of a run with overlap is held against the one before: what lives begin with is no single word."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from iota.client.run_objects import RunObjects
from iota.protocol.merges import LeftOut
from iota.protocol.records import EpochRecord, LeftOutRecord, LifeRecord, MinerRecord
from iota.spec import Overlap, RunSpec
from tests.support.audited_runs import World
from tests.support.overlapping_runs import overlapping_world
from validator.audits.evidence import Evidence
from validator.core.epoch_before import EpochBefore, check_follows, epoch_before
from validator.core.record_checks import SealBroken, check_record
from validator.core.sealed import SealedEpoch

LIAR = 1


@cache
def world() -> World:
    return overlapping_world(epochs=2, outer={"codec": "sparse"}, optimizer={"state": "carry"})


async def _sealed(epoch: int) -> SealedEpoch:
    made = world()
    evidence = Evidence(made.spec, made, RunObjects(made, made), made)  # type: ignore[arg-type]
    return await evidence.sealed(await evidence.record(made.seal_of(epoch)))


async def _before(**changes: Any) -> EpochBefore:
    """What epoch 1 may begin with, where the record of epoch 0 has `changes`."""
    found = await _sealed(0)
    found.record = found.record.model_copy(update=changes)
    return epoch_before(found)


def _with(record: EpochRecord, change: Callable[[MinerRecord], dict[str, Any]]) -> EpochRecord:
    """The record with something else of the liar."""
    hotkey = world().miners[LIAR].hotkey
    miners = [m.model_copy(update=change(m)) if m.hotkey == hotkey else m for m in record.miners]
    return record.model_copy(update={"miners": tuple(miners)})


def _lives(**life: Any) -> Callable[[MinerRecord], dict[str, Any]]:
    """The first life with something else, and one after it."""

    def change(miner: MinerRecord) -> dict[str, Any]:
        first = miner.lives[0].model_copy(update=life)
        return {"lives": (first, LifeRecord(joined=3, first_receipt=miner.last_receipt + 1))}

    return change


def _left_out(why: LeftOut = LeftOut.OUT_OF_BOUNDS) -> LeftOutRecord:
    parts = () if why is LeftOut.MISSING else (0,)
    return LeftOutRecord(miner=world().miners[LIAR].hotkey, stage=LIAR, why=why, parts=parts)


def _refuses(record: EpochRecord, before: EpochBefore) -> str:
    with pytest.raises(SealBroken) as broken:
        check_follows(world().spec, record, before)
    return str(broken.value)


async def test_honest_records_follow_each_other() -> None:
    made = world()
    check_follows(made.spec, made.records[0], EpochBefore())
    check_follows(made.spec, made.records[1], await _before())
    assert all(miner.lives[0].began for miner in made.records[1].miners)


async def test_an_own_start_of_another_contribution_than_was_merged_breaks_the_record() -> None:
    """Else an orchestrator could have an honest miner fail, whose first COMMIT is of its true start."""
    record, before = world().records[1], await _before()

    def other(miner: MinerRecord) -> dict[str, Any]:
        first, *rest = miner.lives[0].began
        return _lives(began=(first.model_copy(update={"digest": "1" * 64}), *rest))(miner)

    assert "another pseudo-gradient than the last merge has of it" in _refuses(_with(record, other), before)


async def test_no_own_start_for_who_contributed_breaks_the_record() -> None:
    """It was admitted with its own start, and what is sealed would have it begin with the anchor."""
    assert "another pseudo-gradient" in _refuses(_with(world().records[1], _lives(began=())), await _before())


@pytest.mark.parametrize("why", [LeftOut.OUT_OF_BOUNDS, LeftOut.MISSING])
async def test_who_was_left_out_of_the_merge_has_no_own_start(why: LeftOut) -> None:
    before, record = await _before(left_out=(_left_out(why),)), world().records[1]
    assert "another pseudo-gradient" in _refuses(record, before)
    check_follows(world().spec, _with(record, _lives(began=(), void=True)), before)
    check_follows(world().spec, _with(record, _lives(began=())), before)


async def test_a_life_is_not_void_whose_contribution_was_merged() -> None:
    record = _with(world().records[1], _lives(void=True))
    assert "loses its life" in _refuses(record, await _before())


@pytest.mark.parametrize("what", ["moments", "feedback"])
async def test_what_is_carried_is_what_the_last_epoch_ended_with(what: str) -> None:
    record, before = world().records[1], await _before()
    none = _refuses(_with(record, lambda miner: {what: None}), before)
    assert f"carry no {what}" in none
    other = _refuses(_with(record, lambda miner: {what: "1" * 64}), before)
    assert f"the {what} named" in other


async def test_who_was_left_out_may_carry_nothing() -> None:
    """Its life began with the anchor: `begins_with` gives such a one zero moments whatever is named."""
    before = await _before(left_out=(_left_out(),))
    check_follows(
        world().spec,
        _with(world().records[1], lambda m: {**_lives(began=())(m), "moments": None, "feedback": None}),
        before,
    )


# ---- what a record can have at all -------------------------------------------------------------------


def _spec(overlap: Overlap) -> RunSpec:
    made = world().spec
    return made.model_copy(update={"outer": made.outer.model_copy(update={"overlap": overlap})})


def _broken(record: EpochRecord, overlap: Overlap = Overlap.ONE_EPOCH) -> str:
    with pytest.raises(SealBroken) as broken:
        check_record(_spec(overlap), record)
    return str(broken.value)


def test_own_starts_are_of_first_lives_in_runs_with_overlap_alone() -> None:
    record = world().records[1]
    check_record(world().spec, record)
    assert "own start in a life that has none" in _broken(record, Overlap.NONE)
    began = record.miners[0].lives[0].began
    assert "own start in a life that has none" in _broken(
        _with(
            record,
            lambda miner: {
                "lives": (*_lives()(miner)["lives"][:1], LifeRecord(joined=3, first_receipt=1, began=began))
            },
        )
    )
    first = world().records[0]
    assert "own start in a life that has none" in _broken(_with(first, _lives(began=began)))
    check_record(world().spec, first)


def test_a_void_life_has_no_own_start_that_counts() -> None:
    """It may be its miner's last one, who did not come back."""
    record = world().records[1]
    check_record(world().spec, _with(record, _lives(began=(), void=True)))
    assert "a void life that counts" in _broken(_with(record, _lives(void=True)))

    def last(miner: MinerRecord) -> dict[str, Any]:
        return {"lives": _lives(began=(), void=True)(miner)["lives"][:1]}

    check_record(world().spec, _with(record, last))


@pytest.mark.parametrize("bad", ["key", "size", "fewer"])
def test_an_own_start_is_of_the_miners_own_objects(bad: str) -> None:
    """Whatever they name would be fetched, so that a record decides what a validator's memory holds."""

    def change(miner: MinerRecord) -> dict[str, Any]:
        first, *rest = miner.lives[0].began
        others = next(m for m in world().records[1].miners if m.hotkey != miner.hotkey)
        given = {
            "key": (first.model_copy(update={"key": others.lives[0].began[0].key}), *rest),
            "size": (first.model_copy(update={"size": 1 << 40}), *rest),
            "fewer": tuple(rest),
        }[bad]
        return _lives(began=given)(miner)

    assert "own start of" in _broken(_with(world().records[1], change))
