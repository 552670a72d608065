"""Weight plans in the validator's database: each is recorded before it is sent, and at each change."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Collection
from dataclasses import replace
from typing import Any, Final

from pydantic import TypeAdapter

from validator.weights.decisions import LastWeights
from validator.weights.plan import WRITTEN, PlanState, WeightPlan

log = logging.getLogger(__name__)

SCHEMA: Final = """
create table if not exists weight_plans (
    number integer primary key autoincrement, genesis text not null, state text not null,
    plan text not null, digest text not null);
"""
KEPT: Final = 1000
"""Older plans are deleted."""
_SHOWN: Final = ("tempo", "state", "block", "mode", "reveal_round", "detail", "planned_s")
"""Fields that `scores.json` shows."""
_PLAN: Final = TypeAdapter(WeightPlan)


class RecordDamaged(ValueError):
    """A recorded plan is unreadable, or does not match its digest."""


class WeightRecords:
    """Plans by number. A write is on disk when it returns (`synchronous = full`).

    Plans that are damaged at the start are deleted, with a line in the log. Reading raises RecordDamaged if
    something else changes the file later.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        for number, text, digest in db.execute("select number, plan, digest from weight_plans").fetchall():
            try:
                _plan(number, text, digest)
            except RecordDamaged as error:
                db.execute("delete from weight_plans where number = ?", (number,))
                log.error("%s: it is deleted, and weights for its tempo may be sent again", error)

    def add(self, plan: WeightPlan) -> WeightPlan:
        """Record a new plan, and return it with its number."""
        number = self._db.execute(
            "insert into weight_plans (genesis, state, plan, digest) values (?, ?, ?, ?)",
            (plan.genesis, plan.state.value, _text(plan), plan.digest),
        ).lastrowid
        assert number is not None
        self._db.execute("delete from weight_plans where number <= ?", (number - KEPT,))
        return replace(plan, number=number)

    def put(self, plan: WeightPlan) -> None:
        """Record a plan's new state. The digest, and with it what was sent, stay as recorded at first."""
        values = (plan.state.value, _text(plan), plan.number)
        self._db.execute("update weight_plans set state = ?, plan = ? where number = ?", values)

    def newest(self, genesis: str, count: int) -> list[WeightPlan]:
        """The last `count` plans for one chain, the oldest first."""
        return self._plans("genesis = ? order by number desc limit ?", genesis, count)[::-1]

    def in_states(self, genesis: str, *states: PlanState) -> list[WeightPlan]:
        """All plans for one chain in these states, the oldest first."""
        return self._plans(f"genesis = ? and state in {_marks(states)} order by number", genesis, *states)

    def last_weights(self, genesis: str) -> LastWeights:
        """The last weights for one chain, as `due` needs them."""
        condition = f"genesis = ? and state in {_marks(WRITTEN)} order by number desc limit 1"
        last = self._plans(condition, genesis, *WRITTEN)
        tempo, block = (last[0].tempo, last[0].block) if last else (None, None)
        return LastWeights(tempo, block, unresolved=bool(self.in_states(genesis, PlanState.PLANNED)))

    def shown(self, count: int = 10) -> list[dict[str, object]]:
        """The last plans for all chains as `scores.json` shows them, the newest first."""
        return [
            {
                **{name: getattr(plan, name) for name in _SHOWN},
                "weights": {target.hotkey: target.weight for target in plan.targets.values()},
            }
            for plan in self._plans("true order by number desc limit ?", count)
        ]

    def _plans(self, condition: str, *values: str | int) -> list[WeightPlan]:
        rows = self._db.execute(f"select number, plan, digest from weight_plans where {condition}", values)
        return [_plan(*row) for row in rows]


def _marks(states: Collection[PlanState]) -> str:
    return f"({', '.join('?' * len(states))})"


def _text(plan: WeightPlan) -> str:
    return json.dumps(_PLAN.dump_python(plan, mode="json"))


def _plan(number: int, text: str, digest: str) -> WeightPlan:
    # Parsed by `json` and not by pydantic, which would not return every float to the last bit.
    try:
        fields: dict[str, Any] = json.loads(text)
        plan = replace(_PLAN.validate_python(fields), number=number)
    except ValueError as error:
        raise RecordDamaged(f"plan {number} of weights in the database is unreadable") from error
    if plan.digest != digest:
        raise RecordDamaged(f"plan {number} of weights in the database does not have its digest")
    return plan
