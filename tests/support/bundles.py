"""Verdict bundles of a trained `World`, and bundles that somebody has changed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3

from iota.client.run_objects import RunObjects
from iota.protocol.messages import AuditKind, EvidenceWanted, Outcome, Verdict
from iota.protocol.receipts import GENESIS, Receipt
from iota.protocol.seals import SignedSeal
from iota.spec import AuditSpec
from orchestrator.http.statements import Statements
from tests.support.audit_benches import Bench, bench
from tests.support.audited_miners import FalseLoss
from tests.support.audited_runs import World
from tests.support.small_runs import small_run
from tests.support.validator_stages import KEY, ORCHESTRATOR
from validator.audits.verdicts import VerdictSigner
from validator.bundles.form import MANIFEST
from validator.bundles.keeper import BundleKeeper
from validator.core import jobs
from validator.core.audit import Audit
from validator.core.deliveries import Deliveries
from validator.core.effects import Effect, FileVerdict, Say
from validator.core.jobs import Script
from validator.core.links import LinkChain
from validator.core.merges import MergeAudits
from validator.core.results import EvidenceMissing, MinerFault, Result, Undelivered
from validator.core.segments import Draws
from validator.core.tasks import AuditTask, drawn_tasks

BLOCK_HASH = "cd" * 32
LINKS = LinkChain(b"\x01" * 32, 4)
CHEAT = 2
"""Stage of the miner that cheats in `cheated_world`."""
OFTEN = AuditSpec(ops=1, commit_every=2, window_steps=3, extra_every=1)


def cheated_world() -> World:
    """An epoch whose miner of the last stage claims better losses than it has."""
    found = World(small_run(audit=OFTEN), {CHEAT: FalseLoss()})
    found.train(0)
    return found


def signed_seal(world: World, epoch: int) -> SignedSeal:
    """The seal over a world's record, with its orchestrator's signature."""
    seal = world.seal_of(epoch)
    return SignedSeal(seal=seal, signature=Statements(world.run, ORCHESTRATOR).seal(seal))


class Desk:
    """A validator's desk over one sealed epoch of a world: it audits, files, and keeps bundles."""

    def __init__(self, world: World, bench: Bench, folder: Path, **bounds: Any) -> None:
        self.world, self.bench, self.folder = world, bench, folder
        sources: Any = (world, RunObjects(world, world), world)  # type: ignore[arg-type]
        self.keeper = BundleKeeper(folder, ORCHESTRATOR.ss58, KEY.ss58, LINKS.link, sources, **bounds)
        seal = signed_seal(world, bench.sealed.epoch)
        self.keeper.began(bench.sealed, seal)
        self.keeper.drawn(seal.seal.block, BLOCK_HASH)

    @classmethod
    async def over(cls, world: World, folder: Path, epoch: int = 0, **bounds: Any) -> Desk:
        """The desk over a trained epoch."""
        return cls(world, await bench(world, epoch), folder, **bounds)

    def drawn(self, stage: int, kind: AuditKind = AuditKind.OP) -> AuditTask:
        """The first audit of a kind that the draw demands of a stage's miner."""
        sealed, hotkey = self.bench.sealed, self.world.miners[stage].hotkey
        draws = Draws(BLOCK_HASH, LINKS.link(sealed.epoch), KEY.ss58)
        tasks = drawn_tasks(sealed, draws, hotkey)
        return next(task for task in tasks if task.kind is kind)

    async def audit(self, stage: int, task: AuditTask) -> Result:
        """Do an audit as a membership does it; evidence is delivered by the miner."""
        miner = self.world.miners[stage]

        def asked(effect: Effect) -> None:
            assert isinstance(effect, Say)
            if isinstance(effect.report, EvidenceWanted):
                self.bench.delivered(deliveries, miner, effect.report)

        deliveries = Deliveries(self.bench.sealed.epoch, asked)
        audit = Audit(self.bench.sealed, miner.hotkey, task, deliveries)
        return await self.bench.run(_followed(audit.run(), self.keeper.did))

    async def merges(self, *, base: bool = False) -> list[tuple[int, AuditTask, Result]]:
        """(stage of the miner, task, result) of the audits of the merges, or of the base that follows."""
        found: list[tuple[int, AuditTask, Result]] = []
        stages = {miner.hotkey: miner.stage for miner in self.world.miners}

        def file(hotkey: str, task: AuditTask, result: Result) -> None:
            found.append((stages[hotkey], task, result))

        sealed, link = self.bench.sealed, LINKS.link(self.bench.sealed.epoch)
        audits = MergeAudits(sealed, BLOCK_HASH, link, file, lambda text: None)
        script: Any = audits.check_base() if base else audits.run()
        await self.bench.run(_followed(script, self.keeper.did))
        return found

    async def file(self, stage: int, task: AuditTask, result: Result) -> Path | None:
        """File a verdict; the bundle that was written of it."""
        before = set(self.folder.glob("verdicts/*.zip"))
        filing = FileVerdict(self.bench.sealed.epoch, self.world.miners[stage].hotkey, task, result)
        writing = self.keeper.filed(filing, VerdictSigner(self.world.run, KEY)(filing))
        if writing is not None:
            await writing
        return next(iter(set(self.folder.glob("verdicts/*.zip")) - before), None)

    async def accuse(self, stage: int, kind: AuditKind = AuditKind.OP, **said: Any) -> Path:
        """Audit the first drawn task and file a FAIL of it, whatever came out; `said` is in the result."""
        task = self.drawn(stage, kind)
        found = await self.audit(stage, task)
        seq = found.seq if found.outcome is Outcome.FAIL else task.seq
        claim = {"outcome": Outcome.FAIL, "seq": seq, **said}
        path = await self.file(stage, task, Result(**{**vars(found), **claim}))
        assert path is not None
        return path


def _followed(script: Script[Result], did: Callable[[jobs.Job], None]) -> Script[Result]:
    """The script, each job of which is told of."""
    answer: object = None
    while True:
        try:
            job = script.throw(answer) if isinstance(answer, Exception) else script.send(answer)
        except StopIteration as end:
            result: Result = end.value
            return result
        if not isinstance(job, jobs.Wait):
            did(job)
        try:
            answer = yield job
        except (EvidenceMissing, MinerFault, Undelivered) as error:
            answer = error


def reseal(world: World, stage: int, change: Callable[[list[Receipt]], list[Receipt]]) -> None:
    """Another chain of receipts of a stage's miner in epoch 0, chained and signed by it, and sealed."""
    chain: list[Receipt] = []
    for receipt in change(list(world.miners[stage].receipts)):
        previous = chain[-1].content_digest() if chain else GENESIS
        chain.append(receipt.model_copy(update={"seq": len(chain) + 1, "previous": previous}))
    world.miners[stage].receipts[:] = chain
    before = world.records[0]
    world.records[0] = world.record_of(0, before.plans, before.deltas)


# ---- changed bundles -------------------------------------------------------------------------------


def members(path: Path) -> dict[str, bytes]:
    """The members of a bundle."""
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def rewritten(path: Path, to: Path, change: dict[str, bytes | None], *, manifest: bool = False) -> Path:
    """A copy with other members (None: without it); with `manifest` it has their digests."""
    found: dict[str, bytes | None] = {**members(path), **change}
    kept = {name: data for name, data in found.items() if data is not None}
    if manifest:
        document = json.loads(kept[MANIFEST])
        document["members"] = [
            {"name": name, "digest": blake3(data).hexdigest(), "size": len(data)}
            for name, data in kept.items()
            if name != MANIFEST
        ]
        kept[MANIFEST] = json.dumps(document).encode()
    with zipfile.ZipFile(to, "w") as file:
        for name, data in kept.items():
            file.writestr(name, data)
    return to


def claimed(path: Path, to: Path, **fields: Any) -> Path:
    """A copy whose manifest says something else."""
    document = {**json.loads(members(path)[MANIFEST]), **fields}
    return rewritten(path, to, {MANIFEST: json.dumps(document).encode()})


def verdict_of(path: Path) -> Verdict:
    """The verdict in a bundle."""
    return Verdict.model_validate(json.loads(members(path)[MANIFEST])["verdict"])
