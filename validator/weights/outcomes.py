"""Finds the outcomes of weight plans on the chain, records them, and logs those that are not as planned."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from iota.chain import TxMode
from validator.chain import SubnetChain, SubnetView
from validator.weights.decisions import fate, landed_state, likely_cause, reassigned_uids, reveal_patience
from validator.weights.plan import OPEN, WRITTEN, PlanState, Point, WeightPlan
from validator.weights.records import WeightRecords

log = logging.getLogger(__name__)

SENDING_S: Final = 120.0
"""Longest time from a plan to the signature of its write: no call to a chain takes longer."""
_FAR: Final = 1 << 30
"""Blocks to the next look if no plan is under way: no bound."""
_NEWER: Final = 10
"""Later plans to look through, per tempo that a commit may stay hidden."""


@dataclass
class WeightOutcomes:
    """Follows each plan until it is known whether it is in force.

    Args:
        put: records a plan's change.
        at: called at each `Point`.
        sending_s: see `SENDING_S`.
    """

    chain: SubnetChain
    records: WeightRecords
    put: Callable[[WeightPlan], None]
    at: Callable[[Point], None]
    sending_s: float
    _read_at: int = 0
    """Block from which the row is read back again."""

    def lifetime(self, view: SubnetView) -> int:
        """Blocks after its planning within which a write can still land."""
        return view.info.write_lifetime_blocks + math.ceil(self.sending_s / view.info.block_time_s)

    def resolve(self, view: SubnetView) -> bool:
        """Find out whether open plans landed. True if one did."""
        genesis, landed, lifetime = view.info.genesis, False, self.lifetime(view)
        for plan in self.records.in_states(genesis, *OPEN):
            state, block = fate(plan, view.subnet, view.neuron, lifetime)
            if state is plan.state:
                continue
            mode = plan.mode
            if state is PlanState.LANDED:
                # If no answer stated the mode, the subnet's rule gives it.
                mode = mode or (TxMode.COMMIT if view.subnet.commit_reveal else TxMode.PLAIN)
                log.info("the weights of tempo %d are in final block %s", plan.tempo, block)
                landed, self._read_at = True, 0
            else:
                # An accepted plan vanished in a reorganisation: a warning. Others were logged before.
                level = logging.INFO if plan.block is None else logging.WARNING
                why = plan.detail or (
                    "no answer" if plan.block is None else f"accepted in block {plan.block}"
                )
                log.log(level, "the weights of tempo %d did not land (%s)", plan.tempo, why)
            self.put(replace(plan, state=state, block=block, mode=mode))
        return landed

    async def read_back(self, view: SubnetView) -> None:
        """Compare landed plans with the row in force, every tenth of a tempo at most while only commits wait.

        Raises ChainError.
        """
        landed = self.records.in_states(view.info.genesis, PlanState.LANDED)
        early = view.status.block < self._read_at
        if not landed or (early and all(plan.is_hidden for plan in landed)):
            return
        self.at(Point.BEFORE_READ_BACK)
        row = await self.chain.row()
        self.at(Point.READ_BACK)
        self._read_at = view.status.block + max(1, view.status.tempo // 10)
        newest = self.records.newest(view.info.genesis, _NEWER * reveal_patience(view.subnet))
        for plan in landed:
            assert plan.block is not None
            later = [p for p in newest if p.number > plan.number and p.state in WRITTEN]
            settled = view.subnet.block.number > plan.block + view.info.write_lifetime_blocks
            state = landed_state(plan, row, later, view.status, view.subnet, settled)
            if state is PlanState.LANDED:
                continue
            detail = plan.detail
            if state is PlanState.NOT_IN_FORCE:
                detail = likely_cause(plan, view.subnet, view.neuron)
                log.warning("the weights of tempo %d are not in force: %s", plan.tempo, detail)
            elif gone := reassigned_uids(plan, view.subnet):
                detail = f"uid {', '.join(map(str, gone))} changed hands before they landed"
                log.warning("the weights of tempo %d: %s, but %s", plan.tempo, state, detail)
            else:
                log.info("the weights of tempo %d: %s", plan.tempo, state)
            self.put(replace(plan, state=state, detail=detail))

    def next_look_blocks(self, view: SubnetView) -> int:
        """Blocks until the chain may show more about plans under way."""
        pending = self.records.in_states(view.info.genesis, *OPEN, PlanState.LANDED)
        if not pending:
            return _FAR
        if all(plan.is_hidden for plan in pending):
            return max(1, self._read_at - view.status.block)
        return 1
