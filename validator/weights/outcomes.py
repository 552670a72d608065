"""Outcomes of plans: found out from the chain, recorded, and logged when they are not as planned."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from iota.chain import TxMode
from validator.chain import SubnetChain, View
from validator.weights.decisions import effect, fate, likely_cause, reveal_patience, strangers
from validator.weights.plan import OPEN, WRITTEN, PlanState, Point, WeightPlan
from validator.weights.records import WeightRecords

log = logging.getLogger(__name__)

SENDING_S: Final = 120.0
"""How long a write may take from its plan to its signature: no call to a chain takes longer."""
_FAR: Final = 1 << 30
"""Blocks: nothing is under way."""
_NEWER: Final = 10
"""Plans to read for each tempo that a commit may stay hidden."""


class WeightOutcomes:
    """Follows plans until it is known whether they are in force. `put` records a change."""

    def __init__(
        self,
        chain: SubnetChain,
        records: WeightRecords,
        put: Callable[[WeightPlan], None],
        at: Callable[[Point], None],
        sending_s: float,
    ) -> None:
        self._chain, self._records, self._put, self._at = chain, records, put, at
        self._sending_s = sending_s
        self._read_at = 0

    def lifetime(self, view: View) -> int:
        """How many blocks after its planning a write can still land."""
        return view.info.write_lifetime_blocks + math.ceil(self._sending_s / view.info.block_time_s)

    def resolve(self, view: View) -> bool:
        """Find out whether open plans landed; True where one did."""
        genesis, landed, lifetime = view.info.genesis, False, self.lifetime(view)
        for plan in self._records.in_states(genesis, *OPEN):
            state, block = fate(plan, view.subnet, view.neuron, lifetime)
            if state is plan.state:
                continue
            mode = plan.mode
            if state is PlanState.LANDED:
                # Where no answer stated the mode, the subnet's rule gives it.
                mode = mode or (TxMode.COMMIT if view.subnet.commit_reveal else TxMode.PLAIN)
                log.info("the weights of tempo %d are in final block %s", plan.tempo, block)
                landed, self._read_at = True, 0
            else:
                # One that was accepted has vanished in a reorganisation; others were logged before.
                level = logging.INFO if plan.block is None else logging.WARNING
                why = plan.detail or (
                    "no answer" if plan.block is None else f"accepted in block {plan.block}"
                )
                log.log(level, "the weights of tempo %d did not land (%s)", plan.tempo, why)
            self._put(replace(plan, state=state, block=block, mode=mode))
        return landed

    async def read_back(self, view: View) -> None:
        """Hold landed plans against the row in force, now and then. Raises ChainError."""
        landed = self._records.in_states(view.info.genesis, PlanState.LANDED)
        if not landed or (view.status.block < self._read_at and not any(map(_is_plain, landed))):
            return
        self._at(Point.BEFORE_READ_BACK)
        row = await self._chain.row()
        self._at(Point.READ_BACK)
        self._read_at = view.status.block + max(1, view.status.tempo // 10)
        newest = self._records.newest(view.info.genesis, _NEWER * reveal_patience(view.subnet))
        for plan in landed:
            assert plan.block is not None
            later = [p for p in newest if p.number > plan.number and p.state in WRITTEN]
            settled = view.subnet.block.number > plan.block + view.info.write_lifetime_blocks
            state = effect(plan, row, later, view.status, view.subnet, settled)
            if state is PlanState.LANDED:
                continue
            detail = plan.detail
            if state is PlanState.NOT_IN_FORCE:
                detail = likely_cause(plan, view.subnet, view.neuron)
                log.warning("the weights of tempo %d are not in force: %s", plan.tempo, detail)
            elif gone := strangers(plan, view.subnet):
                detail = f"uid {', '.join(map(str, gone))} changed hands before they landed"
                log.warning("the weights of tempo %d: %s, but %s", plan.tempo, state, detail)
            else:
                log.info("the weights of tempo %d: %s", plan.tempo, state)
            self._put(replace(plan, state=state, detail=detail))

    def look_after(self, view: View) -> int:
        """After how many blocks the next look tells more about plans that are under way."""
        pending = self._records.in_states(view.info.genesis, *OPEN, PlanState.LANDED)
        hidden = max(1, self._read_at - view.status.block)
        return min((hidden if _is_hidden(plan) else 1 for plan in pending), default=_FAR)


def _is_plain(plan: WeightPlan) -> bool:
    return plan.mode is TxMode.PLAIN


def _is_hidden(plan: WeightPlan) -> bool:
    return plan.state is PlanState.LANDED and plan.mode is TxMode.COMMIT
