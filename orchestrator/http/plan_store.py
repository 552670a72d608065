"""Stores plans in the object store, where validators and dashboards read them."""

from __future__ import annotations

import asyncio
from typing import Final

from iota.objects import PlanKey
from iota.protocol.plans import WholePlan
from iota.store import ObjectStore, StoreError
from orchestrator.coordinator import Coordinator
from orchestrator.http.metrics import Metrics
from orchestrator.http.store_tries import StoreTries

_PUT_S: Final = 60.0


class PlanStore:
    """Stores each new plan. Training goes on meanwhile: nobody needs a plan before its epoch is sealed."""

    def __init__(self, coordinator: Coordinator, store: ObjectStore, metrics: Metrics) -> None:
        self._coordinator, self._store = coordinator, store
        self._tries = StoreTries("the object store, for the run's plans", metrics)
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
        root = self._coordinator.plan_root(plan.epoch, plan.step)
        if root is None:
            return
        key = str(PlanKey(self._coordinator.spec.id, plan.epoch, plan.step, root))

        async def put() -> None:
            async with asyncio.timeout(_PUT_S):
                await self._store.put(key, data)

        def wanted() -> bool:
            return self._coordinator.plan_root(plan.epoch, plan.step) is not None

        await self._tries.persist(put, wanted, (StoreError, TimeoutError))
