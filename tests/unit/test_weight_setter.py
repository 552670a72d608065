"""Weights once a tempo: planned, sent, looked up and read back, over the real ledger and across restarts."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from iota.chain import Subnet, TxMode, Unavailable
from tests.support.small_runs import small_run
from tests.support.weight_benches import BLOCK_S, KEY, MINERS, NETUID, RUN, SCORES, TEMPO, Bench, bench
from validator.audits.budget import Budget
from validator.core.links import LinkChain
from validator.database import Database
from validator.weights.plan import PlanState, Point, Target, WeightPlan
from validator.weights.scoreboard import Scoreboard

ROW = {MINERS[0].ss58: 65535, MINERS[1].ss58: 21845}


class Killed(BaseException):
    """Stands for a kill -9 at a point."""


def kill_at(wanted: Point) -> Any:
    def at(point: Point) -> None:
        if point is wanted:
            raise Killed

    return at


async def test_weights_are_set_once_in_every_tempo_and_read_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        first = (await b.chain.chain.epoch_status(NETUID)).index
        await b.go(5 * TEMPO)
        assert [block // TEMPO for block in b.chain.accepted] == list(range(first, first + 6))
        assert await b.row() == ROW
        assert set(b.states[:-1]) == {"in force"}
        assert b.chain.attempts == len(b.chain.accepted)


async def test_the_chain_is_not_hammered_while_nothing_is_due(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.go(5 * TEMPO)
        assert b.chain.looks <= 6 * 5


async def test_nothing_is_sent_and_the_chain_is_left_alone_before_the_first_scores(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        b.scores = {}
        await b.go(TEMPO)
        assert (b.chain.attempts, b.chain.looks) == (0, 0)
        b.scores = dict(SCORES)
        await b.go(2)
        assert await b.row() == ROW


@pytest.mark.parametrize("point", list(Point))
async def test_a_kill_at_any_point_leaves_one_row_for_the_tempo(tmp_path: Path, point: Point) -> None:
    async with bench(tmp_path) as b:
        tempo = await b.to_next_tempo()
        before = len(b.chain.accepted)
        b.database.close()
        b.open(at=kill_at(point))
        with pytest.raises(Killed):
            await b.go(TEMPO - 1)
        b.restart()
        status = await b.chain.chain.epoch_status(NETUID)
        assert status.index == tempo
        await b.go(status.next_epoch_block - status.block - 1)
        assert len(b.chain.accepted) == before + 1
        assert await b.row() == ROW
        assert b.states[-1] == "in force"


@pytest.mark.parametrize("landed", [True, False])
async def test_weights_of_unknown_fate_are_looked_up_before_anything_is_sent_again(
    tmp_path: Path, landed: bool
) -> None:
    async with bench(tmp_path) as b:
        await b.to_next_tempo()
        before = len(b.chain.accepted)

        async def no_answer(*arguments: Any) -> Any:
            b.chain.instead.clear()
            if landed:
                await b.chain.send(*arguments)
            raise Unavailable("no answer", fate_unknown=True)

        b.chain.instead["set_weights"] = no_answer
        attempts = b.chain.attempts
        await b.go(TEMPO - 4)
        assert len(b.chain.accepted) == before + 1
        assert b.chain.attempts == attempts + (1 if landed else 2)
        assert b.states[-2:] == (["in force"] * 2 if landed else ["lost", "in force"])
        assert await b.row() == ROW


async def test_weights_that_may_still_land_are_not_sent_again(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.to_next_tempo()

        async def no_answer(*arguments: Any) -> Any:
            raise Unavailable("no answer", fate_unknown=True)

        await b.go(1)
        attempts = b.chain.attempts
        b.chain.instead["set_weights"] = no_answer
        await b.to_next_tempo()
        await b.go(1)
        assert b.chain.attempts == attempts + 1
        await b.go(2)  # the ledger's one block, and two of 12 s for the way there
        assert b.chain.attempts == attempts + 1
        await b.go(2)
        assert b.chain.attempts == attempts + 2


async def test_hidden_weights_are_looked_for_until_they_are_revealed(tmp_path: Path) -> None:
    async with bench(tmp_path, reveal_blocks=30) as b:
        await b.to_next_tempo()
        await b.go(4)
        assert b.changes[-1].mode is TxMode.COMMIT
        assert b.states[-1] == "landed"
        await b.go(30)
        assert b.states[0] == "in force"
        assert await b.row() == ROW


async def test_a_killed_commit_is_found_and_waits_for_its_reveal(tmp_path: Path) -> None:
    async with bench(tmp_path, reveal_blocks=10) as b:
        await b.to_next_tempo()
        await b.go(TEMPO - 3)
        b.database.close()
        b.open(at=kill_at(Point.ANSWERED))
        with pytest.raises(Killed):
            await b.go(TEMPO)
        before = len(b.chain.accepted)
        b.restart()
        await b.go(15)
        assert len(b.chain.accepted) == before
        assert b.states[-1] == "in force"


async def test_weights_that_are_never_revealed_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path, reveal_blocks=1000) as b:

        async def promising(netuid: int) -> Subnet:
            """The chain says that it reveals in the next tempo, and does not."""
            return replace(await b.chain.chain.subnet(netuid), reveal_tempos=1)

        b.chain.instead["subnet"] = promising
        await b.go(6 * TEMPO)
        assert b.states[0] == "not in force"
        assert "not in force: the commit was not revealed within 4 tempos" in caplog.text
        b.database.scores.keep_pool(0, None)
        links = LinkChain(b"\x01" * 32, 1)
        Scoreboard(small_run(), KEY.ss58, links, b.database, Budget(1.0), tmp_path).explain()
        shown = json.loads((tmp_path / "scores.json").read_text())["weights"][-1]
        assert (shown["state"], shown["mode"]) == ("not in force", "commit")
        assert "not revealed" in shown["detail"]


async def test_a_permit_lost_before_the_reveal_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path, reveal_blocks=10) as b:
        await b.go(3)
        await b.set_stake(0)
        await b.go(6 * TEMPO)
        assert "not in force: this hotkey has lost its validator permit" in caplog.text


async def test_a_plain_row_that_is_another_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path) as b:

        async def nothing(netuid: int) -> tuple[()]:
            return ()

        b.chain.instead["weights"] = nothing
        await b.go(6)
        assert b.states == ["not in force"]
        assert "weights of tempo 0 are not in force" in caplog.text


async def test_the_owner_gets_its_share_and_who_left_loses_its_weight(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with bench(tmp_path, burn=0.5) as b:
        b.scores = {**SCORES, "5stranger": 1.0}
        await b.go(2)
        row = await b.row()
        owner = (await b.chain.chain.subnet(NETUID)).neurons[0].hotkey
        assert row[owner] / sum(row.values()) == pytest.approx(0.5, abs=1e-4)
        assert row[MINERS[0].ss58] / row[MINERS[1].ss58] == pytest.approx(3, abs=1e-3)
        assert "1 hotkeys have left the subnet and lose their weight: 5stranger" in caplog.text


async def test_the_last_weights_wait_for_the_next_tempo_and_are_read_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.go(3)
        b.scores = {MINERS[0].ss58: 0.5, MINERS[1].ss58: 0.5}
        await _finish(b)
        assert len(b.chain.accepted) == 2
        assert b.chain.accepted[0] // TEMPO < b.chain.accepted[1] // TEMPO
        assert await b.row() == {key.ss58: 65535 for key in MINERS}
        assert b.states == ["in force"] * 2


async def test_last_weights_that_are_set_already_end_the_run_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.go(6)
        before = b.now_s
        await _finish(b)
        assert (len(b.chain.accepted), b.now_s) == (1, before)


async def test_the_last_weights_are_given_up_in_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path) as b:
        await b.stop()
        before = b.now_s
        await _finish(b, 600)
        assert 600 <= b.now_s - before <= 660
        assert "the last weights could not be set in time: held up: no ledger answers" in caplog.text
        await b.serve()


async def test_a_validator_without_any_score_ends_without_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path) as b:
        b.scores = dict.fromkeys(SCORES, 0.0)
        before = b.now_s
        await _finish(b)
        assert (b.chain.attempts, b.now_s) == (0, before)
        assert "the last weights are not set: held up: no miner on the subnet has a score" in caplog.text


async def test_plans_of_another_chain_do_not_count(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.go(3)
        (plan,) = b.database.weights.newest((await b.chain.chain.info()).genesis, 10)
        b.database.weights.add(replace(plan, genesis="0x00", tempo=99, head=10**6))
        await b.to_next_tempo()
        await b.go(3)
        assert len(b.chain.accepted) == 2


def test_a_plan_comes_back_from_the_disk_as_it_was_written(tmp_path: Path) -> None:
    with Database(tmp_path, RUN, KEY.ss58) as database:
        plan = _plan(database)
    with Database(tmp_path, RUN, KEY.ss58) as database:
        assert database.weights.newest("0x01", 5) == [plan]
        assert database.weights.last_weights("0x01").unresolved
        landed = replace(plan, state=PlanState.LANDED, block=12, mode=TxMode.COMMIT, reveal_round=7)
        database.weights.put(landed)
        assert database.weights.in_states("0x01", PlanState.LANDED) == [landed]
        last = database.weights.last_weights("0x01")
        assert (last.tempo, last.block) == (3, 12)


@pytest.mark.parametrize(
    "changed",
    ["""replace(plan, '"version_key": 0', '"version_key": 1')""", "substr(plan, 1, 40)", "x'00ff'"],
)
def test_a_plan_that_was_damaged_is_deleted_and_the_others_stay(
    tmp_path: Path, changed: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Database(tmp_path, RUN, KEY.ss58) as database:
        _plan(database)
        kept = _plan(database)
    with sqlite3.connect(tmp_path / "validator.sqlite") as db:
        assert db.execute(f"update weight_plans set plan = {changed} where number = 1").rowcount == 1
    db.close()
    with Database(tmp_path, RUN, KEY.ss58) as database:
        assert database.weights.newest("0x01", 5) == [kept]
    assert "plan 1 of weights" in caplog.text


def _plan(database: Database) -> WeightPlan:
    targets = {2: Target(MINERS[0].ss58, 65535), 1: Target(MINERS[1].ss58, 3)}
    return database.weights.add(
        WeightPlan("0x01", 3, 10, 5, {MINERS[0].ss58: 0.1 + 0.2}, targets, 0, planned_s=1.5)
    )


async def _finish(b: Bench, retry_for_s: float = 100 * BLOCK_S) -> None:
    running = asyncio.create_task(b.setter.run())
    await b.setter.finish(retry_for_s)
    await running
