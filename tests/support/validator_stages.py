"""Everything around a validator: a run that trains as it is audited, its orchestrator, its ledger."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from iota.chain import Chain, open_chain
from iota.chain.ledger.server import make_app
from iota.client.orchestrator import OrchestratorUnreachable, RunInfo
from iota.compute.state import state_bytes
from iota.compute.tokens import Tokens
from iota.console.watch import Watch
from iota.data import Manifest, manifest_id
from iota.data.directory import DirectoryReader
from iota.data.sample import sequence_indices
from iota.identity.keys import Hotkey
from iota.objects import manifest_folder
from iota.protocol.events import (
    AuditsClosed,
    Delivered,
    EpochClose,
    Event,
    ExchangeReply,
    RunEnd,
)
from iota.protocol.frames import EvidenceItem
from iota.protocol.messages import (
    PROTOCOL_VERSION,
    AuditsDone,
    EvidenceWanted,
    ExchangeRequest,
    JoinReply,
    JoinRequest,
    Report,
    Reveal,
    Role,
    Verdict,
)
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import GENESIS
from iota.protocol.records import BaseRecord
from iota.protocol.seals import SignedSeal
from iota.protocol.verdicts import FiledVerdict, VerdictPage
from iota.spec import AuditSpec, RunSpec
from orchestrator.http.statements import Statements
from tests.support.audited_miners import Noise
from tests.support.audited_runs import World
from tests.support.evidence_answers import delivered, kept_frames
from tests.support.small_runs import small_run
from validator.node import ValidatorNode, ValidatorOptions

NETUID = 9
EPOCHS = 2
KEY = Hotkey.from_seed(b"\x05" * 32)
ORCHESTRATOR = Hotkey.from_seed(b"\x06" * 32)


@dataclass
class Orchestrator:
    """What a validator sees of an orchestrator: events by number, records of open epochs, reports once."""

    world: World
    manifest_bytes: bytes
    chain: Chain
    epochs: int = EPOCHS
    """It trains and seals so many, each when the audits of the one before are closed."""
    said: list[Report] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    joins: list[JoinRequest] = field(default_factory=list)
    closed: set[int] = field(default_factory=set)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    judged: asyncio.Event = field(default_factory=asyncio.Event)
    """Four verdicts are in."""
    audited: asyncio.Event = field(default_factory=asyncio.Event)
    """The audits of an epoch are done."""
    away: bool = False
    """No call is answered."""

    async def run(self) -> RunInfo:
        spec = self.world.spec
        return RunInfo(
            run=spec.id,
            spec=spec,
            orchestrator=ORCHESTRATOR.ss58,
            versions=(PROTOCOL_VERSION,),
            epoch=0,
            step=0,
        )

    async def manifest(self) -> bytes:
        return self.manifest_bytes

    async def join(self, request: JoinRequest) -> JoinReply:
        self._check_there()
        self.joins.append(request)
        if not self.events:
            await self._seal(0)
        spec = self.world.spec
        return JoinReply(
            run=spec.id, spec=spec, orchestrator=ORCHESTRATOR.ss58, version=1, stage=-1, cursor=0,
            receipts=0, head=GENESIS, resume=True, manifest_url="/v1/manifest",
        )  # fmt: skip

    async def exchange(self, request: ExchangeRequest, *, retry_for_s: float) -> ExchangeReply:
        self._check_there()
        for report in request.reports:
            await self._take(report)
        if not request.reports and request.wait_s and len(self.events) <= request.cursor:
            self.changed.clear()
            try:
                async with asyncio.timeout(min(request.wait_s, 0.2)):
                    await self.changed.wait()
            except TimeoutError:
                pass
        numbered = list(enumerate(self.events, 1))[request.cursor :]
        return ExchangeReply(events=tuple(self._delivered(n, e) for n, e in numbered), receipts=0)

    async def seal(self, epoch: int) -> SignedSeal:
        self._check_there()
        if epoch in self.closed:
            raise Problem(ProblemType.NOT_FOUND, f"the audits of epoch {epoch} are closed")
        return self._signed(self.world.seal_of(epoch))

    async def record(self, epoch: int) -> bytes:
        return await self.world.record(epoch)

    async def base(self, epoch: int, stage: int) -> BaseRecord:
        return await self.world.base(epoch, stage)

    async def base_epochs(self) -> list[int]:
        return await self.world.base_epochs()

    def _signed(self, seal: EpochClose) -> SignedSeal:
        return SignedSeal(seal=seal, signature=Statements(self.world.run, ORCHESTRATOR).seal(seal))

    def _delivered(self, number: int, event: Event) -> Delivered:
        signature = self._signed(event).signature if isinstance(event, EpochClose) else None
        return Delivered(seq=number, event=event, signature=signature)

    async def receipts(self, epoch: int, hotkey: str) -> Any:
        return await self.world.receipts(epoch, hotkey)

    async def verdicts(self, epoch: int, page: int, *, retry_for_s: float | None = None) -> VerdictPage:
        self._check_there()
        said = [verdict for verdict in self.verdicts_said() if verdict.epoch == epoch]
        filed = [FiledVerdict(validator=KEY.ss58, verdict=verdict) for verdict in said]
        link = next((r.link for r in self.said if isinstance(r, Reveal) and r.epoch == epoch), None)
        return VerdictPage(
            epoch=epoch,
            closed=epoch in self.closed,
            links={} if link is None else {KEY.ss58: link},
            total=len(filed),
            verdicts=tuple(filed) if page == 0 else (),
        )

    async def objects(self, request: Any) -> Any:
        return await self.world.objects(request)

    def _check_there(self) -> None:
        if self.away:
            raise OrchestratorUnreachable("nobody answers")

    async def _take(self, report: Report) -> None:
        self.said.append(report)
        if len(self.verdicts_said()) >= 4:
            self.judged.set()
        if isinstance(report, EvidenceWanted):
            assert any(isinstance(r, Reveal) and r.epoch == report.epoch for r in self.said)
            miner = next(m for m in self.world.miners if m.hotkey == report.miner)
            if report.item is EvidenceItem.FRAMES:
                data = kept_frames(self.world, miner, report.version, report.epoch)
            elif report.item is EvidenceItem.FEEDBACK:
                data = self.world.held[report.epoch, miner.hotkey]
            else:
                data = state_bytes(miner.snapshots[report.version])
            self._send(delivered(self.world, report, data))
        elif isinstance(report, AuditsDone) and report.epoch not in self.closed:
            self.closed.add(report.epoch)
            self.audited.set()
            self._send(AuditsClosed(epoch=report.epoch))
            if report.epoch + 1 < self.epochs:
                await self._seal(report.epoch + 1)
            else:
                self._send(RunEnd())

    async def _seal(self, epoch: int) -> None:
        self.world.train(epoch)
        self.world.blocks[epoch] = (await self.chain.head()).number + 2
        self._send(self.world.seal_of(epoch))

    def _send(self, event: Event) -> None:
        self.events.append(event)
        self.changed.set()

    def verdicts_said(self) -> list[Verdict]:
        return [report for report in self.said if isinstance(report, Verdict)]


@dataclass
class Stage:
    """Everything around a validator."""

    orchestrator: Orchestrator
    chain: Chain
    folder: Path
    share: float = 1.0
    watch: Watch = field(default_factory=lambda: Watch(scale=0.05))

    @property
    def spec(self) -> RunSpec:
        return self.orchestrator.world.spec

    def node(self) -> ValidatorNode:
        options = ValidatorOptions(self.folder / "validator", compute_share=self.share, retry_for_s=0.2)
        world: Any = self.orchestrator.world
        client: Any = self.orchestrator
        return ValidatorNode(options, KEY, client, world, self.chain, NETUID, self.watch)

    async def validate(self) -> None:
        async with asyncio.timeout(120):
            await self.node().run()


def small_ledger(folder: Path) -> web.Application:
    return make_app(folder / "ledger.db", netuid=NETUID, tempo=20, weights_rate_limit=2, block_time_s=0.05)


def audited_spec(manifest: Manifest, audit: AuditSpec) -> RunSpec:
    return small_run(
        model={"vocab_size": 257},
        data={"manifest": manifest_id(manifest)},
        schedule={"pipeline": "delayed", "epochs": EPOCHS},
        audit=audit,
    )


async def set_up(
    folder: Path,
    ledger: str,
    chain: Chain,
    data: tuple[Path, Manifest],
    audit: AuditSpec,
    share: float = 1.0,
) -> Stage:
    """A run on real text whose stage 1 sends noise; all are registered."""
    out, manifest = data
    spec = audited_spec(manifest, audit)
    reader = DirectoryReader(out, manifest_id(manifest))

    def batches(epoch: int, step: int, index: int) -> Tokens:
        length = spec.data.sequence_length
        wanted = sequence_indices(
            spec.seed, epoch, step, index, steps=3, microbatches=3, sequences=2,
            count=reader.sequence_count(length), first=0,
        )  # fmt: skip
        return np.stack([reader.tokens(n, length) for n in wanted])

    world = World(spec, {1: Noise()}, batches=batches)
    for path in (out / manifest_folder(manifest_id(manifest))).iterdir():
        world.store[f"{manifest_folder(manifest_id(manifest))}/{path.name}"] = path.read_bytes()
    for miner in world.miners:
        async with open_chain(ledger, miner.key) as its:
            (await its.register(NETUID)).check()
    (await chain.register(NETUID, Role.VALIDATOR)).check()
    return Stage(Orchestrator(world, manifest.canonical(), chain), chain, folder, share)


THOROUGH = AuditSpec(commit_every=2, window_steps=1, extra_every=1)
