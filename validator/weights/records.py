"""The notebook's record of weights: each plan before it is sent, and what became of it."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from typing import Any, Final

from iota.chain import TxMode
from validator.weights.due import Own
from validator.weights.plan import WRITTEN, PlanState, Target, WeightPlan

SCHEMA: Final = """
create table if not exists weight_plans (
    number integer primary key autoincrement, genesis text not null, tempo integer not null,
    head integer not null, since integer not null, scores text not null, targets text not null,
    version_key integer not null, planned_s real not null, digest text not null, state text not null,
    block integer, mode text, reveal_round integer, detail text not null);
"""
KEPT: Final = 1000
"""Older plans are forgotten."""
_COLUMNS: Final = (
    "genesis, tempo, head, since, scores, targets, version_key, planned_s,"
    " number, state, block, mode, reveal_round, detail"
)


class RecordDamaged(ValueError):
    """A plan is not what was written down."""


class WeightRecords:
    """Plans by number. Every call is on the disk when it returns (`synchronous = full`)."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def add(self, plan: WeightPlan) -> WeightPlan:
        """Write a new plan down; itself with its number."""
        values = (
            plan.genesis,
            plan.tempo,
            plan.head,
            plan.since,
            json.dumps(dict(plan.scores)),
            json.dumps([[uid, t.hotkey, t.weight] for uid, t in plan.targets.items()]),
            plan.version_key,
            plan.planned_s,
            plan.digest,
            plan.state.value,
            plan.detail,
        )
        number = self._db.execute(
            "insert into weight_plans (genesis, tempo, head, since, scores, targets, version_key, planned_s,"
            " digest, state, detail) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        ).lastrowid
        assert number is not None
        self._db.execute("delete from weight_plans where number <= ?", (number - KEPT,))
        return replace(plan, number=number)

    def put(self, plan: WeightPlan) -> None:
        """Write down what became of a plan."""
        self._db.execute(
            "update weight_plans set state = ?, block = ?, mode = ?, reveal_round = ?, detail = ?"
            " where number = ?",
            (plan.state.value, plan.block, plan.mode, plan.reveal_round, plan.detail, plan.number),
        )

    def newest(self, genesis: str, count: int) -> list[WeightPlan]:
        """The last plans for one chain, the oldest of them first.

        Raises:
            RecordDamaged: the file was changed by somebody else.
        """
        rows = self._db.execute(
            f"select {_COLUMNS}, digest from weight_plans where genesis = ? order by number desc limit ?",
            (genesis, count),
        ).fetchall()
        return [_plan(row) for row in reversed(rows)]

    def in_states(self, genesis: str, *states: PlanState) -> list[WeightPlan]:
        """All plans for one chain that stand so, the oldest first. Raises RecordDamaged."""
        marks = ", ".join("?" * len(states))
        rows = self._db.execute(
            f"select {_COLUMNS}, digest from weight_plans where genesis = ? and state in ({marks})"
            " order by number",
            (genesis, *states),
        )
        return [_plan(row) for row in rows]

    def own(self, genesis: str) -> Own:
        """What `due` wants to know of these records."""
        marks = ", ".join("?" * len(WRITTEN))
        last = self._db.execute(
            f"select tempo, block from weight_plans where genesis = ? and state in ({marks})"
            " order by number desc limit 1",
            (genesis, *WRITTEN),
        ).fetchone()
        tempo, block = last or (None, None)
        return Own(tempo, block, unresolved=bool(self.in_states(genesis, PlanState.PLANNED)))

    def shown(self, count: int = 10) -> list[dict[str, object]]:
        """The last plans of all chains, for people; the newest first."""
        rows = self._db.execute(
            "select tempo, state, block, mode, reveal_round, detail, planned_s, targets from weight_plans"
            " order by number desc limit ?",
            (count,),
        )
        return [
            {
                "tempo": tempo,
                "state": state,
                "block": block,
                "mode": mode,
                "reveal_round": reveal_round,
                "detail": detail,
                "planned_s": planned_s,
                "weights": {hotkey: weight for _, hotkey, weight in json.loads(targets)},
            }
            for tempo, state, block, mode, reveal_round, detail, planned_s, targets in rows
        ]


def _plan(row: tuple[Any, ...]) -> WeightPlan:
    genesis, tempo, head, since, scores, targets, version_key, planned_s, *became, digest = row
    number, state, block, mode, reveal_round, detail = became
    plan = WeightPlan(
        genesis=genesis,
        tempo=tempo,
        head=head,
        since=since,
        scores=json.loads(scores),
        targets={uid: Target(hotkey, weight) for uid, hotkey, weight in json.loads(targets)},
        version_key=version_key,
        planned_s=planned_s,
        number=number,
        state=PlanState(state),
        block=block,
        mode=None if mode is None else TxMode(mode),
        reveal_round=reveal_round,
        detail=detail,
    )
    if plan.digest != digest:
        raise RecordDamaged(
            f"plan {number} of weights in the notebook is damaged: restore it, or use an empty --data-dir"
        )
    return plan
