"""Plans at the server: signed as they are delivered, stored for all to read, gone with their epoch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from iota.objects import PlanKey
from iota.protocol.events import Plan
from iota.protocol.plans import WholePlan
from iota.store import EmbeddedStore
from iota.store.embedded_server import make_app
from miner.plan_check import check_plan
from tests.support.fault_proxies import fault_proxy
from tests.support.orchestrators import Node, Running, node, orchestrator, raw, until
from tests.support.store_servers import SECRET, serving
from tests.support.stored_runs import StoredRun, store_run


@asynccontextmanager
async def store_at(root: Path) -> AsyncIterator[EmbeddedStore]:
    root.mkdir(exist_ok=True)
    async with serving(make_app(root, SECRET)) as url:
        store = EmbeddedStore(url, SECRET)
        try:
            yield store
        finally:
            await store.close()


@asynccontextmanager
async def pair(running: Running) -> AsyncIterator[tuple[Node, Node]]:
    """Two miners that have heard the first plan."""
    async with node(running, b"a") as a, node(running, b"b") as b:
        for each in (a, b):
            each.hold_base()
        await until(lambda: bool(a.events(Plan) and b.events(Plan)))
        yield a, b


def key_of(running: Running, epoch: int, step: int) -> str:
    root = running.coordinator.plan_root(epoch, step)
    assert root is not None
    return str(PlanKey(running.spec.id, epoch, step, root))


def stored(root: Path) -> list[str]:
    """The keys of all stored plans."""
    return sorted(str(path.relative_to(root)) for path in root.glob("*/plan/*/*"))


async def asked(running: Running, key: str) -> tuple[int, dict[str, Any]]:
    status, document, _ = await raw(running, f"/v1/objects?key={key}", b"", method="GET")
    return status, document


async def test_each_replica_hears_its_share_of_one_plan_that_its_orchestrator_signed(tmp_path: Path) -> None:
    async with (
        store_at(tmp_path / "store") as store,
        orchestrator(tmp_path / "journal", store=store) as running,
        pair(running) as (a, b),
    ):
        for each in (a, b):
            [first, *_] = [d for d in each.heard if isinstance(d.event, Plan)]
            assert first.signature is not None
            check_plan(running.spec, each.reply, each.hotkey.ss58, first)
        assert all(d.signature is None for d in a.heard if not isinstance(d.event, Plan))
        one, other = (each.events(Plan)[0] for each in (a, b))
        assert one.proof.root == other.proof.root
        assert {one.proof.at, other.proof.at} == {0, 1}


async def test_the_whole_plan_is_in_the_store_and_anyone_gets_a_url_of_it(tmp_path: Path) -> None:
    async with (
        store_at(tmp_path / "store") as store,
        orchestrator(tmp_path / "journal", store=store) as running,
        pair(running) as (a, b),
    ):
        steps = len(running.coordinator.state.current.steps)
        await until(lambda: len(stored(tmp_path / "store")) == steps)
        status, reply = await asked(running, key_of(running, 0, 0))
        assert status == 200
        async with aiohttp.ClientSession() as http, http.get(reply["url"]) as answer:
            whole = WholePlan.model_validate_json(await answer.read())
        told = a.events(Plan)[0]
        assert (whole.root(), whole.epoch, whole.step) == (told.proof.root, 0, 0)
        assert list(whole.shares()) == [e.share for e in (a.events(Plan)[0], b.events(Plan)[0])]


async def test_no_url_is_given_of_a_plan_that_is_none(tmp_path: Path) -> None:
    async with (
        store_at(tmp_path / "store") as store,
        orchestrator(tmp_path / "journal", store=store) as running,
        pair(running),
    ):
        run = running.spec.id
        root = running.coordinator.plan_root(0, 0)
        assert root is not None
        for key in (
            PlanKey(run, 0, 0, "0" * 64),
            PlanKey(run, 0, 1, root),
            PlanKey(run, 1, 0, root),
            PlanKey(run, 0, 99, root),
            PlanKey("f" * 64, 0, 0, root),
        ):
            assert (await asked(running, str(key)))[0] == 404
        for text in (
            f"{run}/plan/00/0-{root}.json",
            f"{run}/plan/0/-1-{root}.json",
            f"{run}/plan/0/{2**31}-{root}.json",
            f"{run}/plan/0/0-{root}",
            f"{run}/plan/0/0-{root.upper()}.json",
            f"{run}/plan/0/",
        ):
            assert (await asked(running, text))[0] == 403


async def test_plans_outlast_a_store_that_is_away_and_the_run_does_not_wait(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "store"
    root.mkdir()
    async with serving(make_app(root, SECRET)) as url, fault_proxy(url) as proxy:
        store = EmbeddedStore(proxy.url, SECRET)
        await proxy.down()
        async with orchestrator(tmp_path / "journal", store=store) as running, pair(running):
            await until(lambda: "for the run's plans: the object store does not answer" in caplog.text)
            assert stored(root) == []
            await proxy.up()
            steps = len(running.coordinator.state.current.steps)
            await until(lambda: len(stored(root)) == steps, 20.0)
            assert key_of(running, 0, 0) in stored(root)
        await store.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    return store_run(tmp_path_factory.mktemp("run"))


async def test_a_restart_stores_the_plans_of_open_epochs_and_keeps_those_of_records_that_are_read(
    run: StoredRun,
) -> None:
    async with store_at(run.store) as store:
        journal = run.write_journal(merged=False)
        async with orchestrator(journal, run.spec, store=store) as running:
            first = key_of(running, 0, 0)
            await until(lambda: stored(run.store) == [first])
            data = await store.get(first)
        (run.store / first).unlink()  # as if that process had been killed before it was stored
        async with orchestrator(journal, run.spec, store=store):
            await until(lambda: stored(run.store) == [first])
            assert await store.get(first) == data
        journal.unlink()
        async with orchestrator(run.write_journal(), run.spec, store=store) as running:
            await until(lambda: stored(run.store) == [first, key_of(running, 1, 0)])
            assert (await asked(running, first))[0] == 200


async def test_plans_of_closed_epochs_are_not_kept_in_memory(run: StoredRun) -> None:
    coordinator = run.coordinator()
    assert [plan.epoch for plan in coordinator.take_plans()] == [1]
