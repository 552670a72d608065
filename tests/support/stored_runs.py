"""A run that has ended its first epoch: a real journal, and a store's folder with its bases and data."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3

from iota.compute.state import StageState
from iota.data import Tokenizer, manifest_id, open_tokenizer, prepare
from iota.objects import BaseKey
from iota.outer.base import base_digest, base_parts, named_weights
from iota.outer.nesterov import OuterState
from iota.outer.pseudo_gradient import flatten
from iota.protocol.frames import StoredObject
from iota.protocol.messages import (
    BaseStored,
    Delta,
    Ready,
    Report,
)
from iota.spec import RunSpec
from iota.store import EmbeddedStore
from iota.store.embedded_server import make_app
from orchestrator.coordinator import BaseMade, Coordinator, Entry
from orchestrator.journal import Record, SqliteJournal
from tests.support.coordinators import LIMITS, Driven
from tests.support.data_sets import MadeUp, made_up_job
from tests.support.orchestrators import ORCHESTRATOR, Running, orchestrator
from tests.support.small_runs import small_run
from tests.support.store_servers import SECRET, serving


@asynccontextmanager
async def served(run: StoredRun) -> AsyncIterator[tuple[Running, str]]:
    """The run's orchestrator and its store, both over HTTP; yields the store's URL too."""
    manifest = (run.store / f"data/{run.spec.data.manifest}/manifest.json").read_bytes()
    journal = run.root / "journal.db"
    async with serving(make_app(run.store, SECRET, now=time.time)) as url:
        store = EmbeddedStore(url, SECRET)
        try:
            async with orchestrator(journal, run.spec, store=store, manifest=manifest) as running:
                yield running, url
        finally:
            await store.close()


class Recording(Coordinator):
    """A coordinator that keeps its entries."""

    def __init__(self, spec: RunSpec) -> None:
        super().__init__(spec, LIMITS)
        self.entries: list[Entry] = []

    def apply(self, entry: Entry) -> None:
        self.entries.append(entry)
        super().apply(entry)


@dataclass
class StoredRun:
    """What lies in `root`: `store/`, and `journal.db` once it was written."""

    root: Path
    spec: RunSpec
    states: list[StageState]
    """The weights after the first epoch."""
    records: list[BaseStored]

    @property
    def store(self) -> Path:
        return self.root / "store"

    def write_journal(self, *, merged: bool = True) -> Path:
        """A journal in which the base of epoch 0 is stored, and with `merged` that of epoch 1 too."""
        path = self.root / "journal.db"
        journal = SqliteJournal(path, self.spec, ORCHESTRATOR.ss58)
        journal.append([Record(entry) for entry in self.coordinator(merged=merged).entries], 1)
        journal.close()
        return path

    def coordinator(self, *, merged: bool = True) -> Recording:
        """The coordinator that wrote the journal."""
        recording = Recording(self.spec)
        driven = Driven(recording)
        for number in range(self.spec.layout.stages):
            driven.join(number)
        members = driven.state.miners()
        self._store_bases(driven, 0)
        if not merged:
            return recording
        for index in range(self.spec.schedule.microbatches):
            driven.run_microbatch(0, index)
        for member in members:
            driven.say(member, reports=[Delta(epoch=0, parts=_made_up(driven, member.stage))])
        driven.draw_mergers()
        driven.merge_all()
        self._store_bases(driven, 1)
        driven.wait(0.0, block=driven.state.head.block + 1)
        return recording

    def _store_bases(self, driven: Driven, epoch: int) -> None:
        for member in driven.state.miners():
            stored = self.records[member.stage].model_copy(update={"epoch": epoch})
            driven.say(member, reports=[Ready(epoch=epoch, digest=stored.digest)])
        for base in driven.coordinator.disputed_bases():
            true = self.records[base.stage].digest
            driven.coordinator.apply(BaseMade(at=driven.now, epoch=0, stage=base.stage, digest=true))
        for member in driven.state.miners():
            stored = self.records[member.stage].model_copy(update={"epoch": epoch})
            reports: list[Report] = [stored]
            driven.say(member, reports=reports)


def _made_up(driven: Driven, stage: int) -> tuple[StoredObject, ...]:
    sizes = driven.state.part_bytes[stage]
    return tuple(StoredObject(key=f"x/{n}", digest="1" * 64, size=size) for n, size in enumerate(sizes))


def store_run(root: Path, tokenizer: Tokenizer | None = None, **changes: dict[str, Any]) -> StoredRun:
    """Make the store's folder: a data set, and the base of epoch 1, away from the initial weights."""
    tokenizer = tokenizer or open_tokenizer("bytes")
    manifest = prepare(made_up_job(MadeUp(400), 20_000, 5_000, tokenizer), root / "store")
    sections: dict[str, dict[str, Any]] = {
        "model": {"vocab_size": tokenizer.vocab_size},
        "data": {"manifest": manifest_id(manifest), "sequence_length": 32},
        "layout": {"cuts": [2, 2]},
        "schedule": {"epochs": 2, "steps": 1, "microbatches": 2},
        "outer": {"eta": 0.7, "momentum": 0.9, "part_elements": 4096},
    }
    names = {*sections, *changes}
    spec = small_run(**{name: sections.get(name, {}) | changes.get(name, {}) for name in names})
    states, records = [], []
    generator = torch.Generator().manual_seed(1)
    for stage in range(spec.layout.stages):
        weights = StageState.initial(spec, stage).weights
        vector = flatten(weights)
        vector += 0.05 * torch.randn(vector.shape, generator=generator)
        base = OuterState(vector.numpy(), np.full(vector.shape, 0.5, np.float32))
        stored = _write_parts(root / "store", spec, stage, base_parts(spec, base))
        states.append(StageState(named_weights(spec, stage, base.weights)))
        records.append(BaseStored(epoch=1, digest=base_digest(spec, base), parts=stored))
    return StoredRun(root, spec, states, records)


def _write_parts(store: Path, spec: RunSpec, stage: int, parts: Sequence[bytes]) -> tuple[StoredObject, ...]:
    stored = []
    for number, data in enumerate(parts):
        key = str(BaseKey(spec.id, 1, stage, number))
        (store / key).parent.mkdir(parents=True, exist_ok=True)
        (store / key).write_bytes(data)
        stored.append(StoredObject(key=key, digest=blake3(data).hexdigest(), size=len(data)))
    return tuple(stored)
