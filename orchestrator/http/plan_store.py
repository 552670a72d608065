"""Stores plans in the object store, where validators and dashboards read them."""

from __future__ import annotations

import asyncio
from typing import Final

from iota.console.watch import Watch
from iota.objects import PlanKey
from iota.protocol.plans import WholePlan
from iota.retry import Backoff
from iota.store import ObjectStore, StoreError
from orchestrator.coordinator import Coordinator
from orchestrator.http.metrics import Metrics

_BACKOFF: Final = Backoff(first_s=0.5, max_s=10.0)
_PUT_S: Final = 60.0


class PlanStore:
    """Stores each new plan. Training goes on meanwhile: nobody needs a plan before its epoch is sealed."""

    def __init__(self, coordinator: Coordinator, store: ObjectStore, metrics: Metrics) -> None:
        self._coordinator, self._store, self._metrics = coordinator, store, metrics
        self._watch = Watch("the object store, for the run's plans")
        self._due = asyncio.Event()

    def wake(self) -> None:
        """Make `run` look for new plans."""
        self._due.set()

    async def run(self) -> None:
        """Store until cancelled; after a restart, first the plans of all open epochs again."""
        while True:
            self._due.clear()
            for plan in self._coordinator.take_plans():
                await self._put(plan)
            await self._due.wait()

    async def _put(self, plan: WholePlan) -> None:
        """Store one plan, and try again while its epoch can be audited."""
        data = await asyncio.to_thread(lambda: plan.model_dump_json().encode())
        failures = 0
        while (root := self._coordinator.plan_root(plan.epoch, plan.step)) is not None:
            key = str(PlanKey(self._coordinator.spec.id, plan.epoch, plan.step, root))
            try:
                async with asyncio.timeout(_PUT_S):
                    await self._store.put(key, data)
            except (StoreError, TimeoutError) as error:
                failures += 1
                self._metrics.failure("store")
                pause_s = _BACKOFF.pause_s(failures)
                self._watch.failed(error, pause_s)
                await asyncio.sleep(pause_s)
            else:
                self._watch.passed()
                return
