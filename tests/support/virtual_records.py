"""Sealed epochs of a virtual swarm, as a validator sees them, and what its miners did."""

from __future__ import annotations

import zlib
from collections import defaultdict
from typing import Any

from iota.protocol.plans import WholePlan
from iota.protocol.receipts import OpKey, Receipt
from iota.protocol.records import EpochRecord
from iota.simulate.miner import VirtualMiner
from iota.simulate.swarm import VirtualSwarm
from orchestrator.coordinator import Exchanged
from validator.core.sealed import SealedEpoch


class RecordedSwarm(VirtualSwarm):
    """A virtual swarm that keeps every sealed epoch, and each op that each miner ran."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.done: dict[str, set[OpKey]] = defaultdict(set)
        self.sealed: dict[int, SealedEpoch] = {}
        self._plans: dict[tuple[int, int], WholePlan] = {}
        super().__init__(*args, **options)

    def add_miner(self) -> VirtualMiner:
        """Start one more miner, whose ops are noted."""
        miner = super().add_miner()
        run_op = miner._op_result

        def noted(effect: Any) -> Any:
            result = run_op(effect)
            if miner.device.gives_nan(effect.op) is False:
                self.done[miner.hotkey].add(effect.op.key)
            return result

        miner._op_result = noted  # type: ignore[method-assign]
        return miner

    def look(self) -> bool:
        """Keep what has been sealed since the last look; whether the run has ended."""
        self._plans |= {(plan.epoch, plan.step): plan for plan in self.state.outbox.plans}
        for number, published in self.state.audits.published.items():
            if number not in self.sealed:
                self.sealed[number] = self._sealed(number, zlib.decompress(published.packed))
        return self.state.run_end_sent

    def _sealed(self, number: int, data: bytes) -> SealedEpoch:
        record = EpochRecord.model_validate_json(data)
        ranges = {m.hotkey: range(m.first_receipt, m.last_receipt + 1) for m in record.miners}
        receipts: dict[str, list[Receipt]] = {hotkey: [] for hotkey in ranges}
        for entry in self.entries:
            if isinstance(entry, Exchanged) and entry.hotkey in ranges:
                own = [r for r in entry.receipts if r.seq in ranges[entry.hotkey]]
                receipts[entry.hotkey] += [r for r in own if r.epoch == number]
        plans = [self._plans[number, plan.step] for plan in record.plans]
        return SealedEpoch(self.spec, record, plans, receipts)
