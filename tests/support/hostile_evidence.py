"""A trained epoch with evidence that a stranger changed, and everything that a validator makes of it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from iota.client.evidence_files import SealBook
from iota.client.run_objects import RunObjects
from iota.compute.state import StageState, state_bytes
from iota.identity.keys import Hotkey
from iota.protocol.frames import EvidenceItem
from iota.protocol.messages import EvidenceWanted, Outcome
from iota.protocol.receipts import GENESIS, Receipt
from iota.protocol.records import BaseRecord
from iota.protocol.seals import SignedSeal
from iota.spec import AuditSpec
from orchestrator.http.statements import Statements
from tests.support.audited_miners import Miner
from tests.support.audited_runs import THREADS, World
from tests.support.evidence_answers import delivered, kept_frames
from tests.support.small_runs import small_run
from tests.support.validator_stages import ORCHESTRATOR
from validator.audits.auditor import Auditor
from validator.audits.budget import Worker
from validator.audits.evidence import Evidence
from validator.audits.job_runner import JobRunner, is_condition
from validator.audits.replay import ReplayOptions
from validator.bundles.keeper import BundleKeeper
from validator.core import effects
from validator.core.core import ValidatorCore
from validator.core.facts import Done, Fact, Failed, Tick
from validator.core.history import History
from validator.core.links import LinkChain
from validator.core.pool import Pool
from validator.core.results import Result
from validator.core.sealed import SealBroken, SealedEpoch
from validator.core.segments import Draws
from validator.core.tasks import AuditTask, drawn_tasks

BLOCK_HASH = "cd" * 32
LINKS = LinkChain(b"\x01" * 32, 2)
KEY = Hotkey.from_seed(b"\x07" * 32).ss58
"""Of the validator."""


@cache
def trained(pipeline: str = "sync", epochs: int = 1) -> World:
    """A small run of which everything is audited. Nobody changes it: see `hostile`."""
    world = World(
        small_run(
            schedule={"pipeline": pipeline, "steps": 2, "microbatches": 2},
            optimizer={"state": "carry"},
            audit=AuditSpec(ops=64, commit_every=1, window_steps=1, extra_every=1, deadline_s=100.0),
        )
    )
    for epoch in range(epochs):
        world.train(epoch)
    return world


def hostile(world: World) -> World:
    """A copy whose receipts, records and store may be changed."""
    other = copy.copy(world)
    other.miners = [copy.copy(miner) for miner in world.miners]
    for miner in other.miners:
        miner.receipts, miner.snapshots = list(miner.receipts), dict(miner.snapshots)
    other.store, other.records, other.plans = dict(world.store), dict(world.records), dict(world.plans)
    return other


def rewrite(world: World, miner: Miner, receipts: Sequence[Receipt], epoch: int = 0) -> None:
    """Make these the receipts of the miner's epoch: numbered, chained, and sealed in the epoch's record."""
    chain = miner.receipts[: world.lives[epoch, miner.hotkey][0][1] - 1]
    for receipt in receipts:
        previous = chain[-1].content_digest() if chain else GENESIS
        chain.append(receipt.model_copy(update={"seq": len(chain) + 1, "previous": previous}))
    miner.receipts = chain
    record = world.records[epoch]
    world.records[epoch] = world.record_of(epoch, record.plans, record.deltas)


@dataclass
class Audited:
    """What a validator made of an epoch."""

    verdicts: dict[tuple[str, str], Result] = field(default_factory=dict)
    """By miner and name of the audit."""
    internal: list[effects.InternalError] = field(default_factory=list)
    drawn: set[tuple[str, str]] = field(default_factory=set)

    def outcomes(self, miner: Miner) -> set[Outcome]:
        return {result.outcome for (hotkey, _), result in self.verdicts.items() if hotkey == miner.hotkey}

    def check(self) -> None:
        """Every drawn audit has its result, and no error of this program ended one."""
        assert not self.internal, self.internal
        assert self.verdicts
        assert self.drawn <= self.verdicts.keys() or all(n == "seal" for _, n in self.verdicts)


def reader(world: World, records: object) -> Evidence:
    """What reads the evidence of a world; `records` answers as the orchestrator does."""
    return Evidence(world.spec, records, RunObjects(world, world), world)  # type: ignore[arg-type]


class Validator:
    """The validator's core with its jobs, for one process; messages, database and chain are this object."""

    def __init__(self, world: World, folder: Path, history: History | None = None) -> None:
        self.world, self.history = world, history or History()
        evidence, sources = reader(world, self), (self, RunObjects(world, world), world)  # type: ignore[arg-type]
        key = ORCHESTRATOR.ss58
        seals = SealBook(folder, world.run, key)
        bundles = BundleKeeper(folder, key, KEY, LINKS.link, sources)  # type: ignore[arg-type]
        self.worker = Worker()
        options = ReplayOptions(threads=THREADS, max_threads=THREADS)
        auditor = Auditor(evidence, self.worker, options)
        self.jobs = JobRunner(self, self, evidence, auditor, seals, self, bundles, self.settle)  # type: ignore[arg-type]
        self.core = ValidatorCore(world.spec, KEY, LINKS, self.history)
        self._facts: list[Fact] = []
        self._job: effects.Start | None = None
        self.found = Audited()

    async def audit(self, epoch: int = 0) -> Audited:
        """Everything from the seal of `epoch` to its last verdict. Raises conditions of the machine."""
        self._facts = [self.world.seal_of(epoch)]
        now = 0.0
        while self._facts or self._job is not None or self.core.wake_at is not None:
            if not self._facts and self._job is not None:
                start, self._job = self._job, None
                self._facts.append(await self._run(start))
            elif not self._facts:
                assert self.core.wake_at is not None
                now, self._facts = max(now, self.core.wake_at), [Tick()]
            for effect in self.core.take(self._facts.pop(0), now):
                self._perform(effect)
        self.worker.close()
        return self.found

    async def _run(self, start: effects.Start) -> Fact:
        try:
            return Done(start.number, await self.jobs.run(start.job))
        except Exception as error:
            if is_condition(error):
                raise
            return Failed(start.number, error)

    def _perform(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Start():
                self._job = effect
            case effects.FileVerdict():
                name = (effect.miner, effect.task.name)
                assert name not in self.found.verdicts
                self.found.verdicts[name] = effect.result
            case effects.InternalError():
                self.found.internal.append(effect)
            case effects.Say(report=EvidenceWanted() as wanted):
                self._deliver(wanted)

    def _deliver(self, wanted: EvidenceWanted) -> None:
        miner = next(m for m in self.world.miners if m.hotkey == wanted.miner)
        if wanted.item is EvidenceItem.FRAMES:
            data = kept_frames(self.world, miner, wanted.version, wanted.epoch)
        elif wanted.item is EvidenceItem.FEEDBACK:
            data = self.world.held[wanted.epoch, miner.hotkey]
        else:
            state = miner.snapshots.get(wanted.version)
            if state is None:
                return
            data = state if isinstance(state, bytes) else state_bytes(state)
        self._facts.append(delivered(self.world, wanted, data))

    # ---- what jobs ask of the orchestrator, the chain, the meter and the others --------------------

    async def seal(self, epoch: int) -> SignedSeal:
        seal = self.world.seal_of(epoch)
        return SignedSeal(seal=seal, signature=Statements(self.world.run, ORCHESTRATOR).seal(seal))

    async def record(self, epoch: int) -> bytes:
        return await self.world.record(epoch)

    async def receipts(self, epoch: int, hotkey: str) -> Any:
        return await self.world.receipts(epoch, hotkey)

    async def base_epochs(self) -> list[int]:
        return await self.world.base_epochs()

    async def base(self, epoch: int, stage: int) -> BaseRecord:
        return await self.world.base(epoch, stage)

    async def hash_of(self, block: int) -> str:
        return BLOCK_HASH

    async def read(self, epoch: int) -> Pool:
        return Pool({}, (), complete=True)

    async def measure(self, bases: object) -> None:
        return None

    async def settle(self) -> None:
        return None


async def sealed_epoch(world: World, epoch: int = 0) -> SealedEpoch:
    """The epoch as a validator reads it. Raises SealBroken."""
    evidence = reader(world, world)
    return await evidence.sealed(await evidence.record(world.seal_of(epoch)))


async def audited(world: World, epoch: int = 0) -> Audited:
    """What a new validator makes of the epoch."""
    with TemporaryDirectory() as folder:
        found = await Validator(world, Path(folder)).audit(epoch)
    try:
        sealed = await sealed_epoch(world, epoch)
    except SealBroken:
        return found
    found.drawn = {(miner, task.name) for miner, tasks in _drawn(sealed).items() for task in tasks}
    return found


async def drawn_of(world: World, epoch: int = 0) -> dict[str, list[AuditTask]]:
    """The audits that the draw demands, by miner."""
    return _drawn(await sealed_epoch(world, epoch))


def _drawn(sealed: SealedEpoch) -> dict[str, list[AuditTask]]:
    draws = Draws(BLOCK_HASH, LINKS.link(sealed.epoch), KEY)
    return {miner: drawn_tasks(sealed, draws, miner) for miner in sealed.miners}


# ---- snapshots that are none ---------------------------------------------------------------------


def _header(data: bytes, **changes: Any) -> bytes:
    """A safetensors file with another header: fields of the first tensor, or the whole."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header[min(name for name in header if name != "__metadata__")].update(changes)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _with(state: StageState, value: float) -> bytes:
    weights = {name: tensor.clone() for name, tensor in state.weights.items()}
    next(iter(weights.values())).view(-1)[0] = value
    return state_bytes(StageState(weights, state.moments, state.before))


SNAPSHOTS: dict[str, Callable[[StageState], bytes]] = {
    "nothing": lambda state: b"",
    "a page": lambda state: b"<html>" * 100,
    "a long header": lambda state: (2**63).to_bytes(8, "little") + b"{}",
    "deep": lambda state: (20_000).to_bytes(8, "little") + b"[" * 20_000,
    "another dtype": lambda state: _header(state_bytes(state), dtype="F8_E4M3"),
    "no elements": lambda state: _header(state_bytes(state), shape=[0], data_offsets=[0, 0]),
    "huge": lambda state: _header(state_bytes(state), shape=[2**62, 2**62]),
    "a negative extent": lambda state: _header(state_bytes(state), data_offsets=[-4, 0]),
    "NaN": lambda state: _with(state, float("nan")),
    "infinity": lambda state: _with(state, float("inf")),
    "another value": lambda state: _with(state, 3e38),
    "no moments": lambda state: state_bytes(StageState(state.weights)),
}
