"""The whole validator against a run that trains as it is audited, with the real ledger for its chain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from blake3 import blake3

from iota.chain import Chain, open_chain
from iota.chain.ledger.server import make_app
from iota.compute.state import state_bytes
from iota.compute.tokens import Tokens
from iota.data import Manifest, manifest_id
from iota.data.directory import DirectoryReader
from iota.data.manifest import manifest_folder
from iota.data.sample import sequence_indices
from iota.protocol.client import RunInfo
from iota.protocol.events import AuditsClosed, Delivered, Event, ExchangeReply, RunEnd, SnapshotReady
from iota.protocol.keys import Hotkey
from iota.protocol.messages import (
    AuditsDone,
    ExchangeRequest,
    Heldout,
    JoinReply,
    JoinRequest,
    Outcome,
    Report,
    Reveal,
    Role,
    SnapshotWanted,
    StoredObject,
    Verdict,
    WeightsSet,
)
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import GENESIS
from iota.protocol.records import EpochRecord
from iota.spec import AuditSpec, RunSpec
from tests.golden.small_runs import small_run
from tests.unit.audited_runs import Noise, World
from tests.unit.data_sets import prepare_made_up
from validator.links import committed_tip, verify_link
from validator.node import ValidatorNode, ValidatorOptions
from validator.onchain import NotCommitted
from validator.verdicts import verify_verdict

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

    async def run(self) -> RunInfo:
        spec = self.world.spec
        return RunInfo(run=spec.id, spec=spec, orchestrator=ORCHESTRATOR.ss58, versions=(1,), epoch=0, step=0)

    async def manifest(self) -> bytes:
        return self.manifest_bytes

    async def join(self, request: JoinRequest) -> JoinReply:
        self.joins.append(request)
        if not self.events:
            await self._seal(0)
        spec = self.world.spec
        return JoinReply(
            run=spec.id, spec=spec, orchestrator=ORCHESTRATOR.ss58, version=1, stage=-1, cursor=0,
            receipts=0, head=GENESIS, resume=True, manifest_url="/v1/manifest",
        )  # fmt: skip

    async def exchange(self, request: ExchangeRequest, *, patience_s: float) -> ExchangeReply:
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
        return ExchangeReply(events=tuple(Delivered(seq=n, event=e) for n, e in numbered), receipts=0)

    async def epoch_record(self, epoch: int) -> EpochRecord:
        if epoch in self.closed:
            raise Problem(ProblemType.NOT_FOUND, f"the audits of epoch {epoch} are closed")
        return self.world.records[epoch]

    async def receipts(self, epoch: int, hotkey: str) -> Any:
        return await self.world.receipts(epoch, hotkey)

    async def objects(self, request: Any) -> Any:
        return await self.world.objects(request)

    async def status(self) -> dict[str, Any]:
        return {"members": [{"hotkey": m.hotkey, "live": True} for m in self.world.miners]}

    async def _take(self, report: Report) -> None:
        self.said.append(report)
        if len(self.verdicts()) >= 4:
            self.judged.set()
        if isinstance(report, SnapshotWanted):
            assert any(isinstance(r, Reveal) and r.epoch == report.epoch for r in self.said)
            miner = next(m for m in self.world.miners if m.hotkey == report.miner)
            data = state_bytes(miner.snapshots[report.version])
            key = f"{self.world.run}/audit/{report.epoch}/{miner.hotkey}/{report.version}"
            self.world.store[key] = data
            stored = StoredObject(key=key, digest=blake3(data).hexdigest(), size=len(data))
            self._send(
                SnapshotReady(epoch=report.epoch, miner=report.miner, version=report.version, stored=stored)
            )
        elif isinstance(report, AuditsDone) and report.epoch not in self.closed:
            self.closed.add(report.epoch)
            self._send(AuditsClosed(epoch=report.epoch))
            if report.epoch + 1 < self.epochs:
                await self._seal(report.epoch + 1)
            else:
                self._send(RunEnd())

    async def _seal(self, epoch: int) -> None:
        record = self.world.train(epoch)
        block = (await self.chain.head()).number + 2
        seal = record.seal.model_copy(update={"block": block})
        self.world.records[epoch] = record.model_copy(update={"seal": seal})
        self._send(seal)

    def _send(self, event: Event) -> None:
        self.events.append(event)
        self.changed.set()

    def verdicts(self) -> list[Verdict]:
        return [report for report in self.said if isinstance(report, Verdict)]


@dataclass
class Stage:
    """Everything around a validator."""

    orchestrator: Orchestrator
    chain: Chain
    folder: Path
    share: float = 1.0

    @property
    def spec(self) -> RunSpec:
        return self.orchestrator.world.spec

    def node(self) -> ValidatorNode:
        options = ValidatorOptions(self.folder / "validator", compute_share=self.share, heldout_batches=1)
        world: Any = self.orchestrator.world
        client: Any = self.orchestrator
        return ValidatorNode(options, KEY, client, world, self.chain, NETUID)

    async def validate(self) -> None:
        async with asyncio.timeout(120):
            await self.node().run()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    out = tmp_path_factory.mktemp("data")
    return out, prepare_made_up(out, count=200, shard_tokens=8_000, heldout_tokens=2_000)


def small_ledger(folder: Path) -> web.Application:
    return make_app(folder / "ledger.db", netuid=NETUID, tempo=20, weights_rate_limit=2, block_time_s=0.05)


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[str]:
    app = make_app(tmp_path / "ledger.db", netuid=NETUID, tempo=20, weights_rate_limit=2, block_time_s=0.05)
    async with TestServer(app) as server:
        yield str(server.make_url("/"))


@pytest.fixture
async def chain(ledger: str) -> AsyncIterator[Chain]:
    async with open_chain(ledger, KEY) as chain:
        yield chain


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
            count=reader.sequence_count(length),
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


THOROUGH = AuditSpec(step_every=1, epoch_every=2)


@pytest.fixture
async def stage(tmp_path: Path, ledger: str, chain: Chain, data: tuple[Path, Manifest]) -> Stage:
    return await set_up(tmp_path, ledger, chain, data, THOROUGH)


@dataclass
class Finished:
    """A whole run, audited to its end, for the tests that only look."""

    said: list[Report]
    joins: list[JoinRequest]
    hotkeys: list[str]
    run: str
    commitment: bytes
    rewarded: set[str]
    """Hotkeys with a weight on the chain."""
    scores: dict[str, Any]

    @property
    def noisy(self) -> str:
        return self.hotkeys[1]

    def verdicts(self) -> list[Verdict]:
        return [report for report in self.said if isinstance(report, Verdict)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, data: tuple[Path, Manifest]) -> Finished:
    return asyncio.run(_finish(tmp_path_factory.mktemp("finished"), data))


async def _finish(folder: Path, data: tuple[Path, Manifest]) -> Finished:
    async with TestServer(small_ledger(folder)) as server:
        url = str(server.make_url("/"))
        async with open_chain(url, KEY) as chain:
            stage = await set_up(folder, url, chain, data, THOROUGH)
            await stage.validate()
            standing = await chain.commitment(NETUID, KEY.ss58)
            (row,) = await chain.weights(NETUID)
            neurons = (await chain.subnet(NETUID)).neurons
    assert standing is not None
    path = folder / "validator" / stage.spec.id[:16] / "scores.json"
    return Finished(
        said=stage.orchestrator.said,
        joins=stage.orchestrator.joins,
        hotkeys=[m.hotkey for m in stage.orchestrator.world.miners],
        run=stage.spec.id,
        commitment=standing.data,
        rewarded={n.hotkey for n in neurons if n.uid in row.weights},
        scores=json.loads(path.read_text()),
    )


def test_a_noisy_miner_loses_all_weight_and_the_honest_keep_theirs(finished: Finished) -> None:
    outcomes = {(v.miner == finished.noisy, v.outcome) for v in finished.verdicts()}
    assert (True, Outcome.FAIL) in outcomes
    assert {outcome for cheat, outcome in outcomes if not cheat} == {Outcome.PASS}
    last = [r for r in finished.said if isinstance(r, WeightsSet)][-1]
    assert last.weights[finished.noisy] == 0
    assert sum(last.weights.values()) == pytest.approx(1)
    assert all(weight > 0 for hotkey, weight in last.weights.items() if hotkey != finished.noisy)
    assert finished.rewarded == set(finished.hotkeys) - {finished.noisy}


def test_the_tip_is_on_the_chain_before_the_join_and_links_fit_it(finished: Finished) -> None:
    tip = committed_tip(finished.commitment, finished.run)
    assert tip is not None
    assert tip == finished.joins[0].link
    reveals = [r for r in finished.said if isinstance(r, Reveal)]
    assert [r.epoch for r in reveals] == [0, 1]
    assert all(verify_link(r.link, r.epoch, tip) for r in reveals)


def test_every_verdict_is_signed_and_precedes_audits_done(finished: Finished) -> None:
    assert all(verify_verdict(finished.run, v, KEY.ss58) for v in finished.verdicts())
    tampered = finished.verdicts()[0].model_copy(update={"seq": 999})
    assert not verify_verdict(finished.run, tampered, KEY.ss58)
    for epoch in range(EPOCHS):
        about = [r for r in finished.said if getattr(r, "epoch", None) == epoch]
        done = next(n for n, r in enumerate(about) if isinstance(r, AuditsDone))
        assert not any(isinstance(r, Verdict) for r in about[done:])


def test_each_new_base_is_measured_on_held_out_text(finished: Finished) -> None:
    losses = {r.epoch: r.loss for r in finished.said if isinstance(r, Heldout)}
    assert losses.keys() == {1, 2}
    assert all(4 < loss < 7 for loss in losses.values())  # ln 257 = 5.55 before anything is learnt


def test_a_miner_can_read_why_its_score_is_what_it_is(finished: Finished) -> None:
    miners = finished.scores["miners"]
    assert miners[finished.noisy]["valid"] == 0
    assert {v["outcome"] for v in miners[finished.noisy]["failed"]} == {"fail"}
    assert all(m["work"] > 0 and m["timeliness"] == 1 for m in miners.values())


async def test_what_the_compute_cap_leaves_undone_is_filed_as_inconclusive(
    tmp_path: Path, ledger: str, chain: Chain, data: tuple[Path, Manifest]
) -> None:
    audit = AuditSpec(ops=2, step_every=1, deadline_s=6.0)
    stage = await set_up(tmp_path, ledger, chain, data, audit, share=1e-6)
    stage.orchestrator.epochs = 1
    await stage.validate()
    found = [(v.outcome, v.reason) for v in stage.orchestrator.verdicts()]
    assert len(found) >= 9
    assert set(found) == {(Outcome.INCONCLUSIVE, "not done before the deadline")}


async def test_a_restart_repeats_its_draw_and_its_verdicts_and_makes_no_new_ones(stage: Stage) -> None:
    first = asyncio.create_task(stage.node().run())
    await asyncio.wait_for(stage.orchestrator.judged.wait(), 60)
    first.cancel()
    await asyncio.wait([first])
    before = {(v.epoch, v.miner, v.audit, v.seq): v for v in stage.orchestrator.verdicts()}
    await stage.validate()
    after: dict[Any, set[str]] = {}
    for verdict in stage.orchestrator.verdicts():
        name = (verdict.epoch, verdict.miner, verdict.audit, verdict.seq)
        after.setdefault(name, set()).add(verdict.model_dump_json())
    assert before.keys() <= after.keys()
    assert all(len(versions) == 1 for versions in after.values())
    assert len({join.link for join in stage.orchestrator.joins}) == 1


async def test_an_unregistered_validator_is_told_to_register(stage: Stage, ledger: str) -> None:
    stranger = Hotkey.from_seed(b"\x09" * 32)
    options = ValidatorOptions(stage.folder / "stranger")
    client: Any = stage.orchestrator
    async with open_chain(ledger, stranger) as own:
        node = ValidatorNode(options, stranger, client, client.world, own, NETUID)
        with pytest.raises(NotCommitted, match="iota-validator register"):
            await node.run()
    assert not stage.orchestrator.joins
