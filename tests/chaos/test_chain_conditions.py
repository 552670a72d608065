"""Conditions of the chain and the store, in a starting and a running validator and orchestrator."""

from __future__ import annotations

import asyncio
import logging
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from iota.chain import open_chain
from iota.console.conditions import Condition
from iota.console.watch import Watch
from iota.data import Manifest
from iota.identity.keys import Hotkey, create_hotkey, load_hotkey
from iota.protocol.messages import Role
from iota.protocol.problems import Standing
from iota.settings import OrchestratorSettings, ValidatorSettings
from iota.store.embedded_server import make_app
from orchestrator.run import orchestrate
from tests.support.conditioned_nodes import SCALE, made_data, one_stage
from tests.support.fault_proxies import FaultProxy, fault_proxy, page
from tests.support.ledgers import NETUID, OTHER, served
from tests.support.orchestrators import Running, orchestrator, until
from tests.support.store_servers import SECRET, serving
from validator.run import validate

Turn = Callable[["Bench"], Awaitable[None]]


@dataclass
class Bench:
    """A validator, the proxies before its ledger and its orchestrator, and its task."""

    running: Running
    settings: ValidatorSettings
    ledger: FaultProxy
    server: FaultProxy
    hotkey: str
    node: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.node = asyncio.create_task(validate(self.settings, Watch(scale=SCALE)))

    def ended(self) -> bool:
        if self.node is not None and self.node.done():
            self.node.result()
            return True
        return False

    def joined(self) -> bool:
        member = self.running.coordinator.members.get(self.hotkey)
        return member is not None and member.live


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return made_data(tmp_path_factory.mktemp("shards"))


@pytest.fixture
async def at(tmp_path: Path, data: Manifest) -> AsyncIterator[Bench]:
    hotkey = create_hotkey("w", "h", tmp_path / "wallets")
    async with (
        served(tmp_path, max_uids=2, immunity_blocks=0) as ledger_url,
        fault_proxy(ledger_url) as ledger,
        orchestrator(tmp_path / "j", one_stage(data), manifest=data.canonical(), silence_s=1.0) as running,
        fault_proxy(running.url) as server,
    ):
        async with open_chain(ledger_url, hotkey) as chain:
            (await chain.register(NETUID, Role.VALIDATOR)).check()
        settings = ValidatorSettings.of(
            orchestrator=server.url, network=ledger.url, netuid=NETUID, data_dir=tmp_path / "data",
            wallet_name="w", wallet_hotkey="h", wallet_path=tmp_path / "wallets",
        )  # fmt: skip
        made = Bench(running, settings, ledger, server, hotkey.ss58)
        try:
            yield made
        finally:
            if made.node is not None:
                made.node.cancel()
                await asyncio.wait([made.node])


async def lose_permit(at: Bench) -> None:
    at.running.members.only, at.running.members.why = set(), Standing.NO_PERMIT


async def regain_permit(at: Bench) -> None:
    at.running.members.only = None


async def chain_down(at: Bench) -> None:
    await at.ledger.down()


async def chain_up(at: Bench) -> None:
    await at.ledger.up()


async def chain_portal(at: Bench) -> None:
    await at.ledger.set_fault(page(200))


async def chain_clear(at: Bench) -> None:
    await at.ledger.set_fault(None)


async def server_portal(at: Bench) -> None:
    await at.server.set_fault(page(200))


async def server_clear(at: Bench) -> None:
    await at.server.set_fault(None)


async def register(at: Bench, hotkey: Hotkey) -> None:
    """In place of who is registered now: the subnet has one place beside its owner's."""
    async with open_chain(at.ledger.target, hotkey) as chain:
        (await chain.register(NETUID, Role.VALIDATOR)).check()


async def lose_place(at: Bench) -> None:
    await register(at, OTHER)


async def regain_place(at: Bench) -> None:
    settings = at.settings
    await register(at, load_hotkey(settings.wallet_name, settings.wallet_hotkey, settings.wallet_path))


ROWS: dict[str, tuple[Condition, Turn, Turn]] = {
    "permit": (Condition.NO_PERMIT, lose_permit, regain_permit),
    "portal": (Condition.STRANGER, server_portal, server_clear),
    "chain away": (Condition.CHAIN_AWAY, chain_down, chain_up),
    "chain odd": (Condition.CHAIN_ODD, chain_portal, chain_clear),
    "chain refuses": (Condition.CHAIN_REFUSES, lose_place, regain_place),
}


@pytest.mark.parametrize("row", ROWS)
async def test_a_starting_validator_outlasts(row: str, at: Bench, caplog: pytest.LogCaptureFixture) -> None:
    condition, on, off = ROWS[row]
    await on(at)
    at.start()
    await until(lambda: condition.text in caplog.text or at.ended())
    await off(at)
    await until(lambda: at.joined() or at.ended())
    assert not at.ended()


@pytest.mark.parametrize("row", ["permit", "portal"])
async def test_a_running_validator_outlasts(row: str, at: Bench, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    condition, on, off = ROWS[row]
    at.start()
    await until(lambda: at.joined() or at.ended())
    await on(at)
    await until(lambda: condition.text in caplog.text or at.ended())
    await until(lambda: not at.joined())
    await off(at)
    await until(lambda: at.joined() or at.ended(), 20)
    assert not at.ended()


async def test_a_running_validator_that_the_chain_would_refuse_goes_on_with_its_commitment(
    at: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    at.start()
    await until(lambda: at.joined() or at.ended())
    await lose_place(at)
    await server_portal(at)
    await until(lambda: not at.joined())
    await server_clear(at)
    await until(lambda: at.joined() or at.ended(), 20)
    assert not at.ended()
    assert Condition.CHAIN_REFUSES.text not in caplog.text


# ---- the orchestrator ------------------------------------------------------------------------------


@asynccontextmanager
async def orchestrating(folder: Path, network: str, **changes: Any) -> AsyncIterator[asyncio.Task[None]]:
    """`iota-orchestrator start` in this process, whose members come from the chain."""
    manifest = made_data(folder / "shards")
    (folder / "spec.json").write_bytes(one_stage(manifest).canonical())
    (folder / "manifest.json").write_bytes(manifest.canonical())
    (folder / "secret").write_text("0123456789abcdef0123456789abcdef")
    create_hotkey("w", "orchestrator", folder / "wallets")
    settings = OrchestratorSettings.of(
        spec=folder / "spec.json", manifest=folder / "manifest.json", journal=folder / "journal.db",
        store_secret_file=folder / "secret", host="127.0.0.1", network=network, netuid=NETUID,
        wallet_name="w", wallet_hotkey="orchestrator", wallet_path=folder / "wallets", head_poll=0.05,
        **changes,
    )  # fmt: skip
    task = asyncio.create_task(orchestrate(settings, scale=SCALE))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def ready(url: str) -> bool:
    def ask() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    return await asyncio.to_thread(ask)


async def until_ready(url: str, task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(20):
        while not await ready(url):
            if task.done():
                task.result()
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("row", ["chain away", "chain odd"])
async def test_an_orchestrator_outlasts_its_chain_at_the_start_and_later(
    row: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, free_port: int
) -> None:
    condition = ROWS[row][0]
    caplog.set_level(logging.INFO)
    async with served(tmp_path) as ledger_url, fault_proxy(ledger_url) as ledger:
        odd = row == "chain odd"
        await (ledger.set_fault(page(200)) if odd else ledger.down())
        async with orchestrating(tmp_path, ledger.url, port=free_port) as task:
            url = f"http://127.0.0.1:{free_port}"
            await until(lambda: condition.text in caplog.text or task.done())
            await (ledger.set_fault(None) if odd else ledger.up())
            await until_ready(url, task)
            await until(lambda: "the subnet's members: it goes on" in caplog.text or task.done())
            caplog.clear()
            await (ledger.set_fault(page(200)) if odd else ledger.down())
            await until(lambda: condition.text in caplog.text or task.done())
            await (ledger.set_fault(None) if odd else ledger.up())
            await until(lambda: "newest block: it goes on" in caplog.text or task.done())
            assert not task.done()


async def test_an_orchestrator_says_that_its_store_is_away_from_the_start_and_lacks_the_data(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, free_port: int
) -> None:
    caplog.set_level(logging.INFO)
    said = f"the run's store: {Condition.STORE_AWAY.text}"
    async with (
        served(tmp_path) as ledger,
        serving(make_app(tmp_path / "shards", SECRET)) as served_store,
        fault_proxy(served_store) as store,
    ):
        await store.down()
        async with orchestrating(tmp_path, ledger, port=free_port, store=store.url) as task:
            await until(lambda: said in caplog.text or task.done())
            await until_ready(f"http://127.0.0.1:{free_port}", task)  # what needs no store is not held up
            await store.set_fault(page(404))
            await store.up()
            await until(lambda: f"the run's store: {Condition.DATA.text}" in caplog.text or task.done())
            await store.set_fault(None)
            await until(lambda: "the run's store: it goes on" in caplog.text or task.done())
            assert not task.done()


async def test_an_orchestrator_waits_for_an_s3_that_is_away_at_its_start_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    caplog.set_level(logging.INFO)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    store = f"s3://bucket/run?endpoint=http://127.0.0.1:{free_port}"  # nobody listens there
    async with served(tmp_path) as ledger, orchestrating(tmp_path, ledger, port=0, store=store) as task:
        await until(lambda: Condition.STORE_AWAY.text in caplog.text or task.done(), 30)
        assert not task.done()


async def test_a_subnet_that_there_is_not_is_a_mistake(tmp_path: Path) -> None:
    async with served(tmp_path, netuid=NETUID + 1) as ledger_url, orchestrating(tmp_path, ledger_url) as task:
        with pytest.raises(ValueError, match="check --network and --netuid"):
            await asyncio.wait_for(task, 20)


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
