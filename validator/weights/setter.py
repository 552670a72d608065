"""Sets weights once a tempo, and survives faults: each row is planned, sent, looked up and read back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Final

from iota.chain import ChainError, TxMode, TxResult
from iota.console.counts import counted
from validator.chain import SubnetChain, SubnetView
from validator.weights.decisions import LastWeights, Step, due
from validator.weights.outcomes import SENDING_S, WeightOutcomes
from validator.weights.plan import WRITTEN, PlanState, Point, WeightPlan, allot
from validator.weights.records import WeightRecords

log = logging.getLogger(__name__)

LAST_S: Final = 5400.0
"""How long the last weights may take: a tempo of 72 minutes, plus the rate limit."""
_VIEW_BLOCKS: Final = 25
"""Longest wait between two views of the chain, in blocks."""
_BLOCK_S: Final = 12.0
"""Block time of Bittensor, assumed until the chain's own is known."""
_STILL_BLOCKS: Final = 50
"""The chain counts as stalled after so many block times without a new final block."""
_MIN_INTERVAL_S: Final = 60.0
_MAX_INTERVAL_S: Final = 3600.0
"""Bounds of the interval at which a lasting warning is logged again."""
MAX_PAUSE_S: Final = 60.0
"""The longest pause between two tries, unless a block takes longer."""
_NAMED: Final = 5
"""Hotkeys to name in the log."""
_LOOKING: Final = "looking"
_CANNOT: Final = "not allowed"
"""Kinds of warnings that are cleared one by one."""


class WeightSetter:
    """The only writer of one hotkey's weights.

    Args:
        scores: weight by hotkey after the newest audited epoch; empty before the first.
        burn: share of the weights that goes to the subnet's owner.
        on_change: called at every change of a plan's state.
        at: called at each `Point`.
    """

    def __init__(
        self,
        chain: SubnetChain,
        records: WeightRecords,
        scores: Callable[[], Mapping[str, float]],
        burn: float,
        *,
        on_change: Callable[[WeightPlan], None] = lambda plan: None,
        at: Callable[[Point], None] = lambda point: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        sending_s: float = SENDING_S,
    ) -> None:
        self._chain, self._records, self._scores, self._burn = chain, records, scores, burn
        self._on_change, self._at, self._sleep, self._clock = on_change, at, sleep, clock
        self._outcomes = WeightOutcomes(chain, records, self._put, at, sending_s)
        self._blocked = RecurringWarning("weights cannot be set", clock)
        self._unread = RecurringWarning("weights cannot be read back", clock)
        self._stalled = RecurringWarning("the chain stands still", clock)
        self._final_block, self._final_since = -1, clock()
        self._genesis = ""
        self._block_s = _BLOCK_S
        self._end: float | None = None
        self._idle = False
        """Nothing can be set now, so that `finish` need not wait for it."""
        self._woken, self._done = asyncio.Event(), asyncio.Event()
        self.activity = "no epoch is audited yet"
        """The current work in words, for the status line. Informational only."""

    async def run(self) -> None:
        """Set weights in every tempo, from the first audited epoch on, until `finish`."""
        while True:
            pause = await self.step()
            if self._over():
                break
            await self._pause(pause)
        self._done.set()

    async def finish(self, retry_for_s: float = LAST_S) -> None:
        """Wait until the newest scores are on the chain, for at most `retry_for_s`; then `run` ends."""
        self._end = self._clock() + retry_for_s
        self._idle = False
        self._woken.set()
        await self._done.wait()

    async def step(self) -> float:
        """View the chain once and act on it. Returns the seconds until the next view."""
        scores = self._scores()
        if not scores:
            self._idle = True
            return self._block_s
        try:
            view = await self._chain.view()
        except ChainError as error:
            return self._report_blocked(f"{_LOOKING}: {type(error).__name__}", str(error))
        self._genesis, self._block_s = view.info.genesis, view.info.block_time_s
        self._blocked.clear(_LOOKING)
        self._check_progress(view)
        if self._outcomes.resolve(view):
            self._blocked.clear()
        try:
            await self._outcomes.read_back(view)
        except ChainError as error:
            self._unread.report(type(error).__name__, str(error))
        else:
            self._unread.clear()
        return await self._decide(view, scores)

    def _check_progress(self, view: SubnetView) -> None:
        """Warn if the chain stalls, since `due` would only see a tempo that never ends."""
        final, now = view.subnet.block.number, self._clock()
        if final != self._final_block:
            self._final_block, self._final_since = final, now
            self._stalled.clear()
        elif now - self._final_since > _STILL_BLOCKS * self._block_s:
            self._stalled.report(
                "still",
                f"its newest final block stays {final}: is this node in step? If the chain itself goes on, "
                "name another one with --subtensor.chain_endpoint",
            )

    # ---- the next plan ---------------------------------------------------------------------------

    async def _decide(self, view: SubnetView, scores: Mapping[str, float]) -> float:
        own = self._records.last_weights(self._genesis)
        found = due(view.status, view.subnet, view.neuron, own)
        if found.step is Step.CANNOT:
            self._idle = True
            return self._report_blocked(_CANNOT, found.why)
        self._blocked.clear(_CANNOT)
        if found.step is Step.WAIT:
            self.activity = f"waiting: {found.why}"
            blocks = min(found.blocks, _VIEW_BLOCKS, self._outcomes.next_look_blocks(view))
            return blocks * self._block_s
        behind = view.status.block - view.subnet.block.number
        if behind > self._outcomes.lifetime(view):
            return self._report_blocked(
                "not final",
                f"the newest final block is {counted(behind, 'block')} old; a write lives no longer",
            )
        return await self._set(view, scores, own)

    async def _set(self, view: SubnetView, scores: Mapping[str, float], own: LastWeights) -> float:
        allotment = allot(view.subnet, scores, self._burn)
        if allotment is None:
            self._idle = True
            return self._report_blocked("nothing to set", "no miner on the subnet has a score")
        if allotment.gone:
            named = ", ".join(allotment.gone[:_NAMED]) + (", ..." if len(allotment.gone) > _NAMED else "")
            log.info("%d hotkeys have left the subnet and lose their weight: %s", len(allotment.gone), named)
        if self._burn > 0 and view.subnet.owner_uid is None:
            log.warning("the subnet has no owner's uid: its share of %g goes to the miners", self._burn)
        assert view.neuron is not None
        plan = WeightPlan(
            genesis=self._genesis,
            tempo=view.status.index,
            head=view.status.block,
            since=max(view.neuron.last_update, view.neuron.registered_at, own.block or 0),
            scores=dict(scores),
            targets=allotment.targets,
            version_key=view.subnet.weights_version,
            planned_s=time.time(),
        )
        self._at(Point.BEFORE_PLAN)
        plan = self._records.add(plan)
        self._at(Point.PLANNED)
        self.activity = f"setting the weights of tempo {plan.tempo}"
        try:
            result = await self._chain.send(plan.row, plan.version_key)
        except ChainError as error:
            return self._unanswered(plan, error)
        self._at(Point.ANSWERED)
        return self._answered(plan, result)

    def _unanswered(self, plan: WeightPlan, error: ChainError) -> float:
        # A write that may be under way stays open, and is looked for before anything else is sent.
        state = plan.state if error.fate_unknown else PlanState.UNSENT
        self._put(replace(plan, state=state, detail=str(error)))
        return self._report_blocked(f"sending: {type(error).__name__}", str(error))

    def _answered(self, plan: WeightPlan, result: TxResult) -> float:
        if not result.ok:
            text = f"{result.chain_error or result.code}: {result.message}"
            self._put(replace(plan, state=PlanState.REFUSED, detail=text))
            self._at(Point.RECORDED)
            return self._report_blocked(f"refused: {result.code}", f"the chain refuses them: {text}")
        self._blocked.clear()
        self._put(
            replace(
                plan,
                # Without a block it is looked for like a write whose answer was lost.
                state=PlanState.PLANNED if result.block is None else PlanState.ACCEPTED,
                block=result.block,
                mode=result.mode,
                reveal_round=result.reveal_round,
            )
        )
        hidden = f", to be revealed at {result.reveal_round}" if result.mode is TxMode.COMMIT else ""
        log.info("weights of tempo %d accepted in block %s%s", plan.tempo, result.block, hidden)
        self._at(Point.RECORDED)
        return self._block_s

    # ---- waiting ---------------------------------------------------------------------------------

    def _report_blocked(self, kind: str, text: str) -> float:
        """Warn why weights cannot be set now. Returns the seconds until the next try."""
        self._blocked.report(kind, text)
        self.activity = f"held up: {text}"
        return self._blocked.pause_s(self._block_s)

    async def _pause(self, seconds: float) -> None:
        """Sleep, unless `finish` wakes it."""
        if self._woken.is_set():
            await self._sleep(seconds)
            return
        sleep = asyncio.ensure_future(self._sleep(seconds))
        woken = asyncio.ensure_future(self._woken.wait())
        try:
            await asyncio.wait({sleep, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleep.cancel()
            woken.cancel()

    # ---- the end ---------------------------------------------------------------------------------

    def _over(self) -> bool:
        """Whether `run` may end: `finish` was called, and the last weights are written or given up."""
        if self._end is None:
            return False
        if self._newest_scores_written():
            return True
        if self._idle:
            log.warning("the last weights are not set: %s", self.activity)
            return True
        if self._clock() < self._end:
            return False
        log.error("the last weights could not be set in time: %s", self.activity)
        return True

    def _newest_scores_written(self) -> bool:
        """Whether the newest scores are in force, or committed in a final block."""
        settled = WRITTEN - {PlanState.ACCEPTED, PlanState.LANDED}
        return any(
            plan.scores == self._scores() and (plan.state in settled or plan.is_hidden)
            for plan in self._records.newest(self._genesis, 1)
        )

    def _put(self, plan: WeightPlan) -> None:
        self._records.put(plan)
        self._on_change(plan)


class RecurringWarning:
    """A lasting problem, logged when it begins, at widening intervals, and when it ends.

    It holds one cause at a time. `what` begins each line; `clock` gives monotonic seconds.
    """

    def __init__(self, what: str, clock: Callable[[], float]) -> None:
        self._what, self._clock = what, clock
        self._kind = self._text = ""
        self._since = self._next = 0.0
        self._interval = _MIN_INTERVAL_S
        self._tries = 0

    def report(self, kind: str, text: str) -> None:
        """The problem exists or persists. A `kind` other than before is a new cause, and logged at once."""
        now = self._clock()
        if kind != self._kind:
            self._kind, self._text, self._since, self._tries = kind, text, now, 0
            log.warning("%s: %s", self._what, text)
            self._interval = _MIN_INTERVAL_S
            self._next = now + self._interval
        elif now >= self._next:
            log.warning("%s for %.0f minutes now: %s", self._what, (now - self._since) / 60, text)
            self._interval = min(2 * self._interval, _MAX_INTERVAL_S)
            self._next = now + self._interval
        self._tries += 1

    def clear(self, kinds: str = "") -> None:
        """The problem is over, if its kind begins with `kinds`."""
        if self._kind and self._kind.startswith(kinds):
            log.info("%s: over after %.0f s (%s)", self._what, self._clock() - self._since, self._text)
            self._kind, self._tries = "", 0

    def pause_s(self, block_time_s: float) -> float:
        """Seconds until the next try: one block, doubled at each try, up to `MAX_PAUSE_S`."""
        longest = max(MAX_PAUSE_S, block_time_s)
        return min(block_time_s * 2.0 ** min(max(self._tries - 1, 0), 30), longest)
