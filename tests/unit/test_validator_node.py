"""The whole validator against a run that trains as it is audited, with the real ledger for its chain."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer

from iota.chain import Chain, open_chain
from iota.client.orchestrator import UntrustedAnswer
from iota.console.conditions import Condition
from iota.console.watch import Watch
from iota.data import Manifest
from iota.identity.keys import Hotkey
from iota.protocol.events import Delivered, Event
from iota.protocol.messages import (
    AuditsDone,
    JoinRequest,
    Outcome,
    Report,
    Reveal,
    Role,
    Verdict,
    WeightsSet,
)
from iota.protocol.seals import SignedSeal
from iota.spec import AuditSpec
from tests.support.data_sets import prepare_made_up
from tests.support.orchestrators import until
from tests.support.validator_stages import EPOCHS, KEY, NETUID, THOROUGH, Stage, set_up, small_ledger
from validator.audits.verdicts import verify_verdict
from validator.core.links import committed_tip, verify_link
from validator.node import ValidatorNode, ValidatorOptions


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    out = tmp_path_factory.mktemp("data")
    return out, prepare_made_up(out, count=200, shard_tokens=8_000, heldout_tokens=2_000)


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[str]:
    async with TestServer(small_ledger(tmp_path)) as server:
        yield str(server.make_url("/"))


@pytest.fixture
async def chain(ledger: str) -> AsyncIterator[Chain]:
    async with open_chain(ledger, KEY) as chain:
        yield chain


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


def test_a_miner_can_read_why_its_score_is_what_it_is(finished: Finished) -> None:
    miners = finished.scores["miners"]
    assert miners[finished.noisy]["valid"] == 0
    assert {v["outcome"] for v in miners[finished.noisy]["charged"]} == {"fail"}
    assert (miners[finished.noisy]["work"], miners[finished.noisy]["voided"] > 0) == (0, True)
    honest = [m for hotkey, m in miners.items() if hotkey != finished.noisy]
    assert all(m["work"] > 0 and m["timeliness"] == 1 and m["open"] == 0 for m in honest)
    assert finished.scores["silenced"] == {}


async def test_what_the_compute_cap_leaves_undone_is_filed_as_inconclusive(
    tmp_path: Path, ledger: str, chain: Chain, data: tuple[Path, Manifest]
) -> None:
    audit = AuditSpec(ops=2, commit_every=1, window_steps=1, extra_every=1, deadline_s=6.0)
    stage = await set_up(tmp_path, ledger, chain, data, audit, share=1e-6)
    stage.orchestrator.epochs = 1
    await stage.validate()
    found = [(v.outcome, v.reason) for v in stage.orchestrator.verdicts_said()]
    assert len(found) >= 9
    assert set(found) == {(Outcome.INCONCLUSIVE, "not done before the deadline")}


async def test_records_that_are_not_the_orchestrators_leave_their_epoch_undecided(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = stage.orchestrator.receipts

    async def false_at_first(epoch: int, hotkey: str) -> Any:
        # Epoch 1 may be audited from where epoch 0 ended, and then its records are true.
        if epoch == 0 and not any(isinstance(r, AuditsDone) for r in stage.orchestrator.said):
            raise UntrustedAnswer("the answer is not signed by the orchestrator")
        return await told(epoch, hotkey)

    monkeypatch.setattr(stage.orchestrator, "receipts", false_at_first)
    await stage.validate()
    outcomes: dict[int, set[Outcome]] = {}
    for verdict in stage.orchestrator.verdicts_said():
        outcomes.setdefault(verdict.epoch, set()).add(verdict.outcome)
    assert outcomes[0] == {Outcome.INCONCLUSIVE}
    assert {Outcome.PASS, Outcome.FAIL} <= outcomes[1]
    assert [r.epoch for r in stage.orchestrator.said if isinstance(r, AuditsDone)] == [0, 1]


async def test_a_plan_that_the_store_lacks_for_a_while_makes_no_verdict(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.orchestrator.epochs = 1
    lacking: dict[str, bytes] = {}
    train = stage.orchestrator.world.train

    def without_a_plan(epoch: int) -> Any:
        record = train(epoch)
        key = next(key for key in stage.orchestrator.world.store if "/plan/0/1-" in key)
        lacking[key] = stage.orchestrator.world.store.pop(key)
        return record

    stage.orchestrator.world.train = without_a_plan  # type: ignore[method-assign]
    validating = asyncio.create_task(stage.node().run())
    await until(lambda: len(stage.orchestrator.joins) > 2 or validating.done(), 60.0)
    assert Condition.DATA.text in caplog.text
    assert not any(isinstance(report, Verdict | AuditsDone) for report in stage.orchestrator.said)
    stage.orchestrator.world.store.update(lacking)
    await asyncio.wait_for(validating, 60)
    assert {v.outcome for v in stage.orchestrator.verdicts_said()} == {Outcome.PASS, Outcome.FAIL}


async def test_a_restart_repeats_its_draw_and_its_verdicts_and_makes_no_new_ones(stage: Stage) -> None:
    first = asyncio.create_task(stage.node().run())
    await asyncio.wait_for(stage.orchestrator.judged.wait(), 60)
    first.cancel()
    await asyncio.wait([first])
    before = {(v.epoch, v.miner, v.audit, v.seq): v for v in stage.orchestrator.verdicts_said()}
    await stage.validate()
    after: dict[Any, set[str]] = {}
    for verdict in stage.orchestrator.verdicts_said():
        name = (verdict.epoch, verdict.miner, verdict.audit, verdict.seq)
        after.setdefault(name, set()).add(verdict.model_dump_json())
    assert before.keys() <= after.keys()
    assert all(len(versions) == 1 for versions in after.values())
    assert len({join.link for join in stage.orchestrator.joins}) == 1


async def test_an_unregistered_validator_is_told_to_register_and_goes_on_once_it_is(
    stage: Stage, ledger: str, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = Hotkey.from_seed(b"\x09" * 32)
    options = ValidatorOptions(stage.folder / "stranger")
    client: Any = stage.orchestrator
    async with open_chain(ledger, stranger) as own:
        node = ValidatorNode(options, stranger, client, client.world, own, NETUID, Watch(scale=0.01))
        validating = asyncio.create_task(node.run())
        await until(lambda: "iota-validator register" in caplog.text)
        assert not stage.orchestrator.joins
        (await own.register(NETUID, Role.VALIDATOR)).check()
        await until(lambda: bool(stage.orchestrator.joins))
        validating.cancel()
        await asyncio.wait([validating])


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        ("unsigned", "is not signed by"),
        ("record", "is not the one that was sealed"),
        ("two seals", "publishes another seal"),
    ],
)
async def test_nothing_is_revealed_for_a_seal_that_does_not_hold(
    stage: Stage, lie: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    orchestrator = stage.orchestrator
    true_record, true_seal = orchestrator.record, orchestrator.seal

    async def rewritten(epoch: int) -> bytes:
        return await true_record(epoch) + b" "

    async def another(epoch: int) -> SignedSeal:
        seal = (await true_seal(epoch)).seal
        return orchestrator._signed(seal.model_copy(update={"block": seal.block + 1}))

    def forged(number: int, event: Event) -> Delivered:
        return Delivered(seq=number, event=event, signature="0" * 128)

    name, false = {
        "unsigned": ("_delivered", forged),
        "record": ("record", rewritten),
        "two seals": ("seal", another),
    }[lie]
    monkeypatch.setattr(orchestrator, name, false)
    validating = asyncio.create_task(stage.node().run())
    try:
        await until(lambda: said in caplog.text or validating.done(), 60.0)
    finally:
        validating.cancel()
        await asyncio.wait([validating])
    assert said in caplog.text
    assert not any(isinstance(report, Reveal | Verdict) for report in orchestrator.said)
    evidence = [path.name for path in stage.folder.glob("validator/*/evidence/*")]
    assert evidence == (["0-two-seals.json"] if lie == "two seals" else [])


async def test_a_seal_that_comes_after_its_block_is_said_to_be_late(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    orchestrator = stage.orchestrator

    async def seal_late(epoch: int) -> None:
        orchestrator.world.train(epoch)
        head = await stage.chain.head()
        orchestrator.world.blocks[epoch] = head.number + 2 if epoch == 0 else 1
        orchestrator._send(orchestrator.world.seal_of(epoch))

    monkeypatch.setattr(orchestrator, "_seal", seal_late)
    await stage.validate()
    assert "epoch 1: block 1, from which its audits are drawn, was final before the seal came" in caplog.text
    assert "epoch 0: block" not in caplog.text
