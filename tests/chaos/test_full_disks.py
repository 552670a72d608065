"""The disk of a server becomes full, for real: it says so, refuses, and goes on by itself, losing nothing."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from iota.chain import Unavailable, open_chain
from iota.client.orchestrator import OrchestratorClient
from iota.console.conditions import Condition
from iota.console.watch import Watch
from iota.identity.keys import Hotkey, create_hotkey, load_hotkey
from iota.protocol.messages import Role
from iota.protocol.problems import Problem
from iota.settings import MinerSettings
from iota.store import EmbeddedStore, StoreFull
from iota.store.embedded_server import RESERVE_BYTES, make_app
from miner.run import mine
from orchestrator.journal import read_journal
from tests.support.conditioned_nodes import SCALE, made_data, one_stage
from tests.support.ledgers import NETUID, served
from tests.support.orchestrators import join_request
from tests.support.small_disks import SmallDisk, needs_small_disks, on_small_disk
from tests.support.store_servers import SECRET, serving

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _small_disks() -> None:
    needs_small_disks()


def url_of(line: str) -> str:
    return next(word.rstrip(",") for word in line.split() if word.startswith("http://"))


# ---- the orchestrator ------------------------------------------------------------------------------


@asynccontextmanager
async def orchestrating(
    folder: Path, *, full: bool = False, **schedule: Any
) -> AsyncIterator[tuple[SmallDisk, str, str]]:
    """`iota-orchestrator start` with its journal on a small disk; its URL and the ledger's, which is here."""
    shards = folder / "shards"
    manifest = made_data(shards)
    (folder / "spec.json").write_bytes(one_stage(manifest, **schedule).canonical())
    (folder / "manifest.json").write_bytes(manifest.canonical())
    (folder / "secret").write_bytes(SECRET)
    create_hotkey("w", "orchestrator", folder / "wallets")
    allowed = [create_hotkey("w", name, folder / "wallets").ss58 for name in ("miner", "other")]
    (folder / "allow").write_text("\n".join(allowed))
    async with serving(make_app(shards, SECRET)) as store, served(folder, block_time_s=0.1) as ledger:
        program = [
            "orchestrator.cli", "start", f"--spec={folder / 'spec.json'}", f"--store={store}", "--port=0",
            f"--manifest={folder / 'manifest.json'}", f"--store-secret-file={folder / 'secret'}",
            f"--journal={folder / 'small' / 'journal.db'}", f"--network={ledger}", f"--netuid={NETUID}",
            f"--allow={folder / 'allow'}", "--head-poll=0.05", "--wallet.name=w",
            "--wallet.hotkey=orchestrator", f"--wallet.path={folder / 'wallets'}",
        ]  # fmt: skip
        async with on_small_disk(folder / "small", 8 * MIB, program, full=full) as disk:
            if full:
                line = await disk.says(f"{Condition.DISK_FULL.text} (")
                assert "next try in" in line
                disk.empty()
            yield disk, url_of(await disk.says("orchestrated by")), ledger


def mining(folder: Path, url: str) -> asyncio.Task[None]:
    settings = MinerSettings.of(
        orchestrator=url, data_dir=folder / "miner", wallet_name="w", wallet_hotkey="miner",
        wallet_path=folder / "wallets", threads=1, device="cpu",
    )  # fmt: skip
    return asyncio.create_task(mine(settings, watch=Watch(scale=SCALE)))


async def status(http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with http.get(f"{url}/v1/status") as answer:
        found: dict[str, Any] = await answer.json()
        return found


async def until_receipts(http: aiohttp.ClientSession, url: str, more_than: int) -> int:
    async with asyncio.timeout(40):
        while (found := (await status(http, url))["receipts"]) <= more_than:  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)
        return int(found)


async def test_a_running_orchestrator_outlasts_a_full_disk_and_loses_nothing(tmp_path: Path) -> None:
    async with (
        orchestrating(tmp_path, steps_per_epoch=30) as (disk, url, ledger),
        aiohttp.ClientSession() as http,
    ):
        miner = mining(tmp_path, url)
        await until_receipts(http, url, 3)
        disk.fill()
        line = await disk.says(f"the run's journal: {Condition.DISK_FULL.text}")
        assert Condition.DISK_FULL.remedy in line
        stopped = (await status(http, url))["receipts"]
        other = load_hotkey("w", "other", tmp_path / "wallets")
        async with OrchestratorClient(other, url, retry_for_s=0.0) as client:
            await client.run()
            with pytest.raises(Problem, match="the operator must make room") as refused:
                await client.join(join_request())
        assert (refused.value.status, refused.value.retry_after) == (503, 5)
        assert (await status(http, url))["receipts"] == stopped
        async with open_chain(ledger) as chain:
            began = (await chain.head()).number
            async with asyncio.timeout(20):
                while (await chain.head()).number < began + 20:  # noqa: ASYNC110 - of another process
                    await asyncio.sleep(0.05)
        disk.empty()
        await disk.says("the run's journal: it goes on after")
        await until_receipts(http, url, stopped)
        await asyncio.wait_for(miner, 60)
        ended = await status(http, url)
        for path in disk.folder.glob("journal.db*"):
            shutil.copy(path, tmp_path / path.name)
        disk.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(disk.process.wait(), 20) == 0
    replayed = read_journal(tmp_path / "journal.db").status()
    for name in ("receipts", "settled", "dropped", "finished"):
        assert replayed[name] == ended[name], name
    assert (ended["finished"], ended["dropped"], ended["settled"]) == (True, 0, 30 * 2)
    # Blocks came all the time; a line for each entry that was not taken would fill the disk again.
    assert sum("not recorded" in line for line in disk.said) == 0


async def test_a_starting_orchestrator_outlasts_a_full_disk(tmp_path: Path) -> None:
    async with orchestrating(tmp_path, full=True) as (disk, url, _), aiohttp.ClientSession() as http:
        miner = mining(tmp_path, url)
        await until_receipts(http, url, 3)
        await disk.says("it goes on after")
        miner.cancel()
        await asyncio.wait([miner])


# ---- the object store ------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [False, True], ids=["running", "starting"])
async def test_a_store_outlasts_a_full_disk(tmp_path: Path, full: bool) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    root = tmp_path / "small" / "objects"
    program = ["iota.cli.main", "store", "serve", f"--root={root}", f"--secret-file={tmp_path / 'secret'}"]
    async with on_small_disk(
        tmp_path / "small", RESERVE_BYTES + 8 * MIB, [*program, "--port=0"], full=full
    ) as disk:
        store = EmbeddedStore(url_of(await disk.says("object store at")), SECRET)
        try:
            if not full:
                await store.put("a/first", b"1" * MIB)
                disk.fill()
            with pytest.raises(StoreFull, match="no room for 1048576 bytes"):
                await store.put("a/second", b"2" * MIB)
            line = await disk.says(f"{Condition.STORE_FULL.text} (")
            assert "exit code" not in line, "a server goes on for as long as it lasts"
            assert full or await store.get("a/first") == b"1" * MIB
            disk.empty()
            await store.put("a/second", b"2" * MIB)
            assert await store.get("a/second") == b"2" * MIB
            await disk.says("it goes on after")
        finally:
            await store.close()


# ---- the ledger --------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [False, True], ids=["running", "starting"])
async def test_a_ledger_outlasts_a_full_disk(tmp_path: Path, full: bool) -> None:
    program = ["iota.cli.main", "ledger", "serve", f"--db={tmp_path / 'small' / 'ledger.db'}", "--port=0"]
    hotkeys = [Hotkey.from_seed(bytes([number]) * 32) for number in range(1, 40)]
    async with on_small_disk(tmp_path / "small", MIB, [*program, "--block-time=0.05"], full=full) as disk:
        if full:
            line = await disk.says(f"the ledger: {Condition.DISK_FULL.text}")
            assert "next try in" in line
            disk.empty()
        url = url_of(await disk.says("embedded ledger at"))
        if full:
            await disk.says("the ledger: it goes on after")
            disk.said.clear()
        registered = []

        async def register(hotkey: Hotkey) -> None:
            async with open_chain(url, hotkey) as chain:
                (await chain.register(NETUID, Role.MINER)).check()
            registered.append(hotkey.ss58)

        await register(hotkeys[0])
        disk.fill()
        with pytest.raises(Unavailable, match="the ledger cannot store"):  # noqa: PT012 - one of many
            for hotkey in hotkeys[1:]:
                await register(hotkey)
        line = await disk.says(f"the ledger: {Condition.DISK_FULL.text}")
        assert "exit code" not in line
        disk.empty()
        await register(hotkeys[-1])
        await disk.says("the ledger: it goes on after")
        async with open_chain(url) as chain:
            there = {neuron.hotkey for neuron in (await chain.subnet(NETUID)).neurons}
        assert set(registered) <= there, "what was acknowledged is kept"
        disk.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(disk.process.wait(), 20) == 0
    assert not [line for line in disk.said if "Traceback" in line]
