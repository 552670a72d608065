"""`iota audit epoch`: an epoch by public data alone, against a real orchestrator and a real ledger."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner

from iota.chain import Chain, open_chain
from iota.cli.audit import app, report_lines
from iota.client.run_objects import RunObjects
from iota.identity.keys import Hotkey
from iota.objects import PlanKey
from iota.protocol.merges import LeftOut
from iota.protocol.messages import Outcome, Reveal, Role
from iota.protocol.records import LeftOutRecord
from iota.protocol.seals import SignedSeal
from iota.protocol.verdicts import FiledVerdict, VerdictPage
from iota.spec import AuditSpec
from iota.store import ObjectStore
from tests.support.audited_runs import World
from tests.support.bundles import signed_seal
from tests.support.orchestrators import node, orchestrator
from tests.support.overlapping_runs import overlapping_world
from tests.support.small_runs import small_run
from tests.support.store_servers import embedded
from tests.support.validator_stages import NETUID, ORCHESTRATOR, small_ledger
from tests.support.whole_epochs import epoch, sealed
from validator.audits.epoch_check import Contradiction, EpochReport, ValidatorRow, check_epoch
from validator.audits.public_chain import PublicChain
from validator.audits.verdicts import VerdictSigner
from validator.core import all_receipts
from validator.core.effects import FileVerdict
from validator.core.links import LinkChain, commitment
from validator.core.results import Result
from validator.core.sealed import SealedEpoch
from validator.core.segments import Draws
from validator.core.tasks import drawn_tasks

GOOD, SILENT = Hotkey.from_seed(b"\x21" * 32), Hotkey.from_seed(b"\x22" * 32)
LINKS = {GOOD.ss58: LinkChain(b"\x31" * 32, 2), SILENT.ss58: LinkChain(b"\x32" * 32, 2)}


@pytest.fixture(scope="module")
def world() -> World:
    found = World(small_run(audit=AuditSpec(commit_every=2, window_steps=1, extra_every=1)))
    found.train(0)
    return found


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[str]:
    async with TestServer(small_ledger(tmp_path)) as server:
        yield str(server.make_url("/"))


@pytest.fixture
async def chain(ledger: str, world: World) -> AsyncIterator[PublicChain]:
    """A ledger on which both validators have committed; its head is behind the block of the seal."""
    for key in (GOOD, SILENT):
        async with open_chain(ledger, key) as its:
            (await its.register(NETUID, Role.VALIDATOR)).check()
            (await its.commit(NETUID, commitment(world.run, LINKS[key.ss58].tip))).check()
    async with open_chain(ledger) as found:
        world.blocks[0] = (await found.head()).number + 1
        await until_block(found, world.blocks[0])
        yield PublicChain(found, NETUID, world.run)


async def until_block(chain: Chain, number: int) -> None:
    async with asyncio.timeout(10):
        while (await chain.finalized()).number < number:  # noqa: ASYNC110 - the ledger makes blocks
            await asyncio.sleep(0.02)


@dataclass
class Server:
    """What an orchestrator publishes of a world's epoch."""

    world: World
    given: dict[str, str] = field(default_factory=dict)
    filed: list[FiledVerdict] = field(default_factory=list)
    closed: bool = True
    second: SignedSeal | None = None

    async def seal(self, epoch: int) -> SignedSeal:
        return self.second or signed_seal(self.world, epoch)

    async def record(self, epoch: int) -> bytes:
        return await self.world.record(epoch)

    async def receipts(self, epoch: int, hotkey: str) -> Any:
        return await self.world.receipts(epoch, hotkey)

    async def base(self, epoch: int, stage: int) -> Any:
        return await self.world.base(epoch, stage)

    async def links(self, epoch: int) -> dict[str, str]:
        return self.given

    async def verdicts(self, epoch: int, page: int) -> VerdictPage:
        shown = self.filed if page == 0 else []
        return VerdictPage(
            epoch=epoch, closed=self.closed, links=self.given, total=len(self.filed), verdicts=tuple(shown)
        )

    async def status(self) -> dict[str, Any]:
        return {"members": [{"hotkey": GOOD.ss58, "role": "validator"}]}

    def reveal(self, key: Hotkey) -> None:
        self.given[key.ss58] = LINKS[key.ss58].link(0)

    def file(self, key: Hotkey, sealed: SealedEpoch, block_hash: str, *, but: int = 0) -> None:
        """All verdicts of a validator's draw, less the last `but`."""
        sign, own = VerdictSigner(self.world.run, key), []
        for hotkey in sealed.miners:
            draws = Draws(block_hash, LINKS[key.ss58].link(0), key.ss58)
            for task in drawn_tasks(sealed, draws, hotkey):
                filing = FileVerdict(0, hotkey, task, Result(Outcome.PASS, task.seq, "exact"))
                own.append(FiledVerdict(validator=key.ss58, verdict=sign(filing)))
        self.filed += own[: len(own) - but]


@pytest.fixture
async def server(world: World) -> Server:
    return Server(world)


async def checked(server: Server, chain: PublicChain | None, epoch: int = 0) -> EpochReport:
    objects: Any = RunObjects(server.world, server.world)  # type: ignore[arg-type]
    spec, client = server.world.spec, server
    return await check_epoch(spec, ORCHESTRATOR.ss58, epoch, client, objects, chain)  # type: ignore[arg-type]


async def the_epoch(world: World) -> SealedEpoch:
    from tests.support.audit_benches import bench

    return (await bench(world)).sealed


async def test_an_epoch_in_which_all_is_right_holds(server: Server, chain: PublicChain) -> None:
    block_hash = await chain.block_hash(server.world.seal_of(0))
    assert block_hash is not None
    sealed = await the_epoch(server.world)
    for key in (GOOD, SILENT):
        server.reveal(key)
        server.file(key, sealed, block_hash)
    report = await checked(server, chain)
    assert report.contradictions == []
    assert report.holds
    for row in report.validators:
        assert row.missing == 0
        assert row.outcomes == {"pass": row.drawn}


async def test_a_validator_that_withholds_its_link_is_named(server: Server, chain: PublicChain) -> None:
    server.reveal(GOOD)
    server.closed = False
    assert (await checked(server, chain)).holds  # it may still come
    server.closed = True
    report = await checked(server, chain)
    assert SILENT.ss58 in report.withheld
    assert not report.holds


@pytest.mark.parametrize("closed", [False, True])
def test_what_is_missing_of_an_open_epoch_is_not_said_to_be_withheld(closed: bool) -> None:
    rows = [
        ValidatorRow("5silent"),
        ValidatorRow("5slow", True, drawn=12, missing=2, outcomes={"fail": 7, "pass": 13}),
        ValidatorRow("5wrong"),
    ]
    wrong = [Contradiction("5wrong", "its link is not of the chain that it committed")]
    report = EpochReport("ab", 0, "5o", closed=closed, verdicts=True, validators=rows, contradictions=wrong)
    lines = [line for line in report_lines(report) if line.startswith("validator ")]
    missing = (
        ("WITHHOLDS ITS LINK", "WITHHOLDS 2") if closed else ("link not revealed yet", "2 not filed yet")
    )
    besides = "10 of them on merges, bases, records and others' accusations"
    assert lines == [
        f"validator 5silent: {missing[0]}, no verdicts",
        f"validator 5slow: 12 drawn, 20 verdicts (7 fail, 13 pass; {besides}), {missing[1]}",
        "validator 5wrong: a wrong link, no verdicts",
    ]


async def test_a_validator_that_withholds_a_verdict_is_named_with_their_number(
    server: Server, chain: PublicChain
) -> None:
    block_hash = await chain.block_hash(server.world.seal_of(0))
    assert block_hash is not None
    sealed = await the_epoch(server.world)
    for key in (GOOD, SILENT):
        server.reveal(key)
        server.file(key, sealed, block_hash, but=2 if key is SILENT else 0)
    report = await checked(server, chain)
    assert report.withheld == [SILENT.ss58]
    assert {row.hotkey: row.missing for row in report.validators} == {GOOD.ss58: 0, SILENT.ss58: 2}


async def test_a_link_of_another_chain_than_the_committed_one_is_told(
    server: Server, chain: PublicChain
) -> None:
    server.given = {GOOD.ss58: LinkChain(b"\x39" * 32, 2).link(0)}
    told = {c.who: c.what for c in (await checked(server, chain)).contradictions}
    assert told == {GOOD.ss58: "its link is not of the chain that it committed"}


async def test_a_link_that_was_committed_after_the_block_is_told(
    server: Server, chain: PublicChain, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.reveal(GOOD)
    monkeypatch.setitem(world.blocks, 0, 0)
    told = {c.who: c.what for c in (await checked(server, chain)).contradictions}
    assert "had committed no chain" in told[GOOD.ss58]


async def test_a_verdict_that_its_validator_did_not_sign_is_the_orchestrators(
    server: Server, chain: PublicChain
) -> None:
    block_hash = await chain.block_hash(server.world.seal_of(0))
    assert block_hash is not None
    server.reveal(GOOD)
    server.file(GOOD, await the_epoch(server.world), block_hash)
    first = server.filed[0]
    server.filed[0] = first.model_copy(
        update={"verdict": first.verdict.model_copy(update={"reason": "changed"})}
    )
    (told,) = (await checked(server, chain)).contradictions
    assert told.who == ORCHESTRATOR.ss58
    assert f"1 verdict that {GOOD.ss58} did not sign" in told.what


async def test_a_record_that_was_not_sealed_and_a_seal_that_was_not_signed_are_told(
    server: Server, world: World
) -> None:
    true = signed_seal(world, 0)
    server.second = true.model_copy(update={"signature": "00" * 64})
    assert "not signed" in (await checked(server, None)).contradictions[0].what
    server.second = signed_seal(world, 0).model_copy(
        update={"seal": true.seal.model_copy(update={"record": "ab" * 32})}
    )
    assert not (await checked(server, None)).holds


# ---- a real orchestrator ----------------------------------------------------------------------------


async def test_a_record_that_contradicts_the_one_before_is_the_orchestrators() -> None:
    made = overlapping_world(epochs=2)
    assert (await checked(Server(made), None, 1)).contradictions == []
    one = made.miners[1].hotkey
    out = LeftOutRecord(miner=one, stage=1, why=LeftOut.MISSING, parts=())
    made.records[0] = made.records[0].model_copy(update={"left_out": (out,)})
    [found] = (await checked(Server(made), None, 1)).contradictions
    assert found.who == ORCHESTRATOR.ss58
    assert found.what.startswith(f"{one} begins with another pseudo-gradient than the last merge has of it")


@pytest.mark.parametrize("silent", [False, True])
async def test_a_real_server_is_checked_and_its_silent_validator_named(
    tmp_path: Path, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a chain: links and draws are not followed, and everything that is signed is checked."""
    monkeypatch.setattr(all_receipts, "false_commit", lambda *of: None)  # these miners have no weights
    async with (
        embedded(tmp_path / "store", time.time) as store,
        orchestrator(tmp_path / "journal", store=store) as running,
        epoch(running) as pair,
    ):
        await sealed(running, pair)
        run = running.spec.id
        for step in range(running.spec.schedule.steps):
            root = running.coordinator.plan_root(0, step)
            assert root is not None
            await until_stored(store, str(PlanKey(run, 0, step, root)))
        async with node(running, b"v", Role.VALIDATOR) as good, node(running, b"w", Role.VALIDATOR) as other:
            for each in (good,) if silent else (good, other):
                each.talk.send(reports=[Reveal(epoch=0, link="1" * 64)])
                assert await each.talk.flush(5)
            (tmp_path / "run.json").write_text(json.dumps({"url": running.url}))
            source = ["--run-dir", str(tmp_path)] if silent else ["--orchestrator", running.url]
            flags = [*source, "--allow-private-urls"]
            shown = await asyncio.to_thread(CliRunner().invoke, app, ["epoch", "0", "--json", *flags])
    report = json.loads(shown.output)
    assert report["contradictions"] == []
    assert report["receipts"] == sum(len(each.log.receipts) for each in pair)
    assert report["withheld"] == ([other.hotkey.ss58] if silent else [])
    assert shown.exit_code == 0  # the audits are open, so what is missing may still come
    assert report["holds"]


async def until_stored(store: ObjectStore, key: str) -> None:
    async with asyncio.timeout(10):
        while await store.size(key) is None:  # noqa: ASYNC110 - the server stores it in the background
            await asyncio.sleep(0.02)
