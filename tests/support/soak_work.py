"""A process of `scripts/soak_audits.py`, whose environment chooses the kernels: makes a row or audits it.

    python -m tests.support.soak_work make FOLDER...
    python -m tests.support.soak_work audit FOLDER:NUMBER...      # NUMBER: which auditor of the row

Each FOLDER has row.json. `make` writes FOLDER/EPOCH.pickle; `audit` writes FOLDER/audit-NUMBER.json: `Found`.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import random
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest import mock

import torch
from pydantic import TypeAdapter

from iota.compute.determinism import device_class
from iota.compute.engine import Engine
from iota.compute.state import StageState
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind
from iota.spec import Precision
from tests.support import audited_runs
from tests.support.audit_benches import Bench, bench
from tests.support.audited_runs import World
from tests.support.soak_rows import Row, batches
from validator.audits import tolerance
from validator.audits.distances import Worst
from validator.audits.replay import ReplayOptions
from validator.core.results import Bounds, Quantity, ReplayMismatch, Result

NOBODYS: Final = "cuda/Some GPU/cuda1/torch1"
"""A device class without a profile."""
MAX_OPS: Final = 100
"""Ops that one auditor draws of one epoch."""
_WORLD: Final = ("store", "kept", "records", "made", "blocks", "bases", "plans", "lives")
_MINER: Final = ("device", "receipts", "snapshots", "joined", "rest")


@dataclass
class Tally:
    """Audits of one kind that one profile decided."""

    audits: int = 0
    failed: int = 0
    compared: int = 0
    """Distances that were held against a bound."""
    largest: dict[str, float] = field(default_factory=dict)
    """`op quantity` -> the largest ratio of a distance to its bound."""
    distances: dict[str, float] = field(default_factory=dict)
    """`op quantity` -> the largest distance."""


@dataclass
class Found:
    """What one auditor of a row found."""

    device: str
    tallies: dict[str, Tally] = field(default_factory=dict)
    """`op` or `segment`, of an honest stage or a lying one, and how it was compared: `op exact` ..."""
    fails: list[str] = field(default_factory=list)
    """Of honest stages, in words."""


FOUND: Final = TypeAdapter(Found)


# ---- making ---------------------------------------------------------------------------------------


def make(row: Row, folder: Path) -> None:
    """Train the epochs of a row, and write what validators need of each."""
    own = device_class("cpu", torch.get_num_threads())
    world = World(row.spec, device=NOBODYS if row.lies else own, batches=batches(row))
    for miner in world.miners:
        if row.lies and miner.stage == 1:
            bf16 = row.spec.model_copy(update={"precision": Precision.BF16_MASTER})
            miner.engine = Engine(bf16, miner.stage)
            miner.engine.load(StageState.initial(row.spec, miner.stage), version=0)
        miner.engine.activations = row.activations
    for epoch in range(row.epochs):
        world.train(epoch)
        (folder / f"{epoch}.pickle").write_bytes(pickle.dumps(_parts(world)))


def _parts(world: World) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What there is of a world besides its engines."""
    miners = [{name: getattr(miner, name) for name in _MINER} for miner in world.miners]
    return {name: getattr(world, name) for name in _WORLD}, miners


def read_world(row: Row, folder: Path, epoch: int) -> World:
    """The world of a row as it was after an epoch."""
    world = World(row.spec, batches=batches(row))
    own, miners = pickle.loads((folder / f"{epoch}.pickle").read_bytes())
    vars(world).update(own)
    for miner, parts in zip(world.miners, miners, strict=True):
        vars(miner).update(parts)
    return world


# ---- auditing -------------------------------------------------------------------------------------


class Soak:
    """One auditor of a row: counts its audits, and how near to its bound each compared distance came."""

    def __init__(self, row: Row, number: int) -> None:
        self._row, self._number = row, number
        threads = torch.get_num_threads()
        most = max(threads, row.auditors[number].max_threads)
        self._options = ReplayOptions(threads=threads, max_threads=most)
        self._seen: list[tuple[OpKind, Quantity, float, float]] = []
        self.found = Found(device_class("cpu", threads))

    async def audit(self, folder: Path) -> None:
        """Audit all epochs of the row that `folder` has."""
        beyond = tolerance._beyond

        def noted(
            bounds: Bounds, kind: OpKind, quantity: Quantity, seq: int, worst: Worst
        ) -> ReplayMismatch | None:
            if bound := bounds.of(kind, quantity):  # none where bits are compared
                self._seen.append((kind, quantity, worst.distance, bound))
            return beyond(bounds, kind, quantity, seq, worst)

        with mock.patch.object(tolerance, "_beyond", noted):
            for epoch in range(self._row.epochs):
                opened = await bench(read_world(self._row, folder, epoch), epoch, options=self._options)
                await self._epoch(opened, epoch)
                opened.worker.close()

    async def _epoch(self, opened: Bench, epoch: int) -> None:
        rng = random.Random(f"{self._row.number}/{self._number}/{epoch}")
        miners = opened.world.miners
        ops = [(m.stage, receipt) for m in miners for receipt in opened.sealed.auditable(m.hotkey)]
        drawn = set(rng.sample(range(len(ops)), min(MAX_OPS, len(ops))))
        for stage, receipt in (op for at, op in enumerate(ops) if at in drawn):
            self._count(
                "op", stage, await opened.audit(stage, AuditKind.OP, step=receipt.step, seq=receipt.seq)
            )
        for miner in miners:
            for segment in opened.sealed.segments(miner.hotkey):
                result = await opened.audit(miner.stage, AuditKind.SEGMENT, step=segment.first)
                self._count("segment", miner.stage, result)
            fault = await opened.check(miner.stage)
            if fault is not None:
                self.found.fails.append(f"stage {miner.stage}: {fault.reason}")

    def _count(self, kind: str, stage: int, result: Result) -> None:
        liar = self._row.lies and stage == 1
        how = f"{kind}{' lie' if liar else ''} {compared_by(result.profile)}"
        tally = self.found.tallies.setdefault(how, Tally())
        tally.audits += 1
        tally.failed += result.outcome is not Outcome.PASS
        tally.compared += len(self._seen)
        for op, quantity, distance, bound in self._seen:
            key = f"{op} {quantity}"
            tally.largest[key] = max(tally.largest.get(key, 0.0), distance / bound)
            tally.distances[key] = max(tally.distances.get(key, 0.0), distance)
        self._seen.clear()
        if result.outcome is not Outcome.PASS and not liar:
            self.found.fails.append(f"{kind} of stage {stage}, by {result.profile}: {result.reason}")


def compared_by(profile: str) -> str:
    """How a profile of this name compares: `exact`, `measured`, `declared` or `not shown`."""
    return "not shown" if profile.startswith("class not shown") else profile.partition("/")[0]


def main() -> None:
    what, *orders = sys.argv[1:]
    audited_runs.THREADS = int(
        os.environ["OMP_NUM_THREADS"]
    )  # torch takes no more than there are cores by itself
    torch.set_num_threads(audited_runs.THREADS)
    for order in orders:
        path, _, number = order.partition(":")
        folder = Path(path)
        row = Row.model_validate_json((folder / "row.json").read_bytes())
        if what == "make":
            make(row, folder)
            continue
        soak = Soak(row, int(number))
        asyncio.run(soak.audit(folder))
        (folder / f"audit-{number}.json").write_bytes(FOUND.dump_json(soak.found))


if __name__ == "__main__":
    main()
