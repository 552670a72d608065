"""`iota doctor` on real nodes: the command itself, over an embedded ledger, in each state that it is for."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from iota.chain import open_chain
from iota.chain.ledger.server import make_app
from iota.doctor import DEADLINE_S, Severity, findings, gather
from iota.doctor.facts import OrchestratorFacts, Unknown
from iota.doctor.gathering import answer_to
from iota.identity.certificates import revoke
from iota.identity.coldkey import create_coldkey
from iota.identity.keys import create_hotkey, hotkey_path, load_hotkey
from iota.identity.worker_file import make_worker
from iota.protocol.messages import Role
from iota.settings import MinerSettings, ValidatorSettings
from iota.system.daemon_threads import DaemonThreads
from tests.support.orchestrators import Running, join_request, make_spec, orchestrator

NETUID = 9


@dataclass
class Node:
    """A machine with a wallet, an orchestrator and a ledger within reach."""

    folder: Path
    ledger: str
    orchestrator: str
    run: Running | None = None

    async def register(self, role: Role) -> None:
        hotkey = create_hotkey("w", "h", self.folder)
        async with open_chain(self.ledger, hotkey) as chain:
            (await chain.register(NETUID, role)).check()

    async def doctor(self, role: str, **flags: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """Exit code and findings by check of the real command."""
        given = {
            "network": self.ledger,
            "orchestrator": self.orchestrator,
            "wallet.name": "w",
            "wallet.hotkey": "h",
            "wallet.path": str(self.folder),
            "data-dir": str(self.folder / "data"),
        }
        words = [word for name, value in (given | flags).items() if value for word in (f"--{name}", value)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("IOTA_", "BT_"))}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "iota.cli.main", "doctor", "--json", "--role", role, *words),
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        output, _ = await process.communicate()
        answer = json.loads(output)
        assert process.returncode is not None
        assert answer["ok"] is (process.returncode == 0)
        return process.returncode, {finding["check"]: finding for finding in answer["findings"]}


@asynccontextmanager
async def node(folder: Path, ahead_s: float = 0.0, faucet_stake: float = 1000.0) -> AsyncIterator[Node]:
    """`ahead_s`: how far this machine's clock is ahead of the ledger's."""
    app = make_app(
        folder / "ledger.db",
        clock=lambda: time.time_ns() - int(ahead_s * 1e9),
        netuid=NETUID,
        faucet_stake=faucet_stake,
    )
    async with TestServer(app) as server, orchestrator(folder / "journal.db") as run:
        yield Node(folder, str(server.make_url("/")), run.url, run)


@pytest.mark.parametrize("role", ["miner", "validator"])
async def test_a_registered_node_is_well(tmp_path: Path, role: str) -> None:
    async with node(tmp_path) as machine:
        await machine.register(Role(role))
        code, found = await machine.doctor(role)
    assert code == 0, found
    assert found["registration"]["found"].startswith("uid ")
    assert found["orchestrator"]["verdict"] == "ok"


async def test_a_machine_with_a_worker_file_needs_no_wallet_and_its_owner_is_looked_up(
    tmp_path: Path,
) -> None:
    file, elsewhere = tmp_path / "worker.json", {"wallet.path": str(tmp_path / "none")}
    async with node(tmp_path) as machine:
        await machine.register(Role.MINER)
        owner = load_hotkey("w", "h", tmp_path)
        worker = make_worker(file, owner, make_spec().id, 1)
        code, found = await machine.doctor("miner", worker=str(file), **elsewhere)
        assert code == 0, found
        assert found["worker"]["found"] == f"{worker.key.ss58} of {owner.ss58}, in {file}"
        assert found["registration"]["found"].startswith("uid ")
        make_worker(tmp_path / "other.json", owner, "ab" * 32, 1)
        code, found = await machine.doctor("miner", worker=str(tmp_path / "other.json"), **elsewhere)
        assert code == 1
        assert found["worker"]["found"].startswith("the certificate is of run abababababab")
        code, found = await machine.doctor("miner", worker=str(tmp_path / "no.json"), **elsewhere)
    assert (code, found["worker"]["remedy"]) == (1, "`iota-miner certify` makes one")


async def test_a_worker_needs_no_chain_and_is_told_where_its_owner_is_to_be_registered(
    tmp_path: Path,
) -> None:
    file, nowhere = tmp_path / "worker.json", {"network": "", "wallet.name": "another"}
    async with node(tmp_path) as machine:
        owner = create_hotkey("w", "h", tmp_path)
        worker = make_worker(file, owner, make_spec().id, 1)
        code, found = await machine.doctor("miner", worker=str(file), **nowhere)
        assert code == 0, found
        assert found["chain"]["found"].startswith("not asked: a worker needs none")
        code, found = await machine.doctor("miner", worker=str(file))
        assert code == 1
        assert found["registration"]["found"].startswith(f"{owner.ss58} is not registered")
        remedy = found["registration"]["remedy"]
        assert remedy.startswith("register it where its wallet is: `iota-miner register --wallet.name W ")
        assert "balance" not in found
        assert machine.run is not None
        async with machine.run.client(worker.key) as client:
            await client.join(join_request(certificate=worker.certificate))
        async with machine.run.client(owner) as client:
            await client.revoke(revoke(owner, worker.key.ss58, make_spec().id))
        code, found = await machine.doctor("miner", worker=str(file), **nowhere)
    assert (code, "has revoked" in found["worker"]["found"]) == (1, True)
    assert "`iota-miner certify`" in found["worker"]["remedy"]


async def test_on_a_fresh_machine_each_missing_thing_has_its_remedy(tmp_path: Path) -> None:
    async with node(tmp_path) as machine:
        code, found = await machine.doctor("miner")
    assert code == 1
    assert found["hotkey"]["verdict"] == "problem"
    assert "iota wallet new --wallet.name w --wallet.hotkey h" in found["hotkey"]["remedy"]
    assert found["chain"]["verdict"] == "ok"


async def test_a_world_readable_hotkey_is_named_with_chmod(tmp_path: Path) -> None:
    async with node(tmp_path) as machine:
        await machine.register(Role.MINER)
        path = hotkey_path("w", "h", tmp_path)
        path.chmod(0o644)
        code, found = await machine.doctor("miner")
    assert code == 1
    assert found["hotkey file"]["remedy"] == f"run `chmod 600 {path}`"


async def test_an_unregistered_hotkey_is_named_with_the_command(tmp_path: Path) -> None:
    async with node(tmp_path) as machine:
        create_hotkey("w", "h", tmp_path)
        code, found = await machine.doctor("miner")
    assert code == 1
    assert "`iota-miner register --wallet.name w" in found["registration"]["remedy"]


async def test_a_validator_without_a_permit_is_named_with_what_it_takes(tmp_path: Path) -> None:
    async with node(tmp_path, faucet_stake=0.0) as machine:
        await machine.register(Role.VALIDATOR)
        code, found = await machine.doctor("validator")
    assert code == 1
    assert "a ledger gives stake to a hotkey that is new" in found["permit"]["remedy"]


@pytest.mark.parametrize("ahead_s", [60.0, -60.0])
async def test_a_clock_a_minute_off_is_named_with_its_remedy(tmp_path: Path, ahead_s: float) -> None:
    async with node(tmp_path, ahead_s) as machine:
        await machine.register(Role.MINER)
        code, found = await machine.doctor("miner")
    assert code == 1
    assert found["clock"]["verdict"] == "problem"
    assert "timedatectl set-ntp true" in found["clock"]["remedy"]
    assert ("behind the chain's newest block" in found["clock"]["found"]) is (ahead_s < 0)


async def test_a_coldkey_on_the_machine_is_seen_and_not_opened(tmp_path: Path) -> None:
    """A pipe stands in the file's place: whoever opened it would wait for ever."""
    create_coldkey("w", tmp_path, "password")
    (tmp_path / "w" / "coldkey").unlink()
    os.mkfifo(tmp_path / "w" / "coldkey")
    async with node(tmp_path) as machine:
        await machine.register(Role.MINER)
        code, found = await machine.doctor("miner")
    assert (code, found["coldkey"]["verdict"]) == (0, "warning")


@asynccontextmanager
async def silent_server() -> AsyncIterator[str]:
    """A port that takes connections and never answers."""
    writers = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.close()


async def test_endpoints_that_hang_are_named_and_keep_nothing_else_waiting(tmp_path: Path) -> None:
    create_hotkey("w", "h", tmp_path)
    async with silent_server() as address:
        settings = MinerSettings.load(
            wallet_name="w",
            wallet_hotkey="h",
            wallet_path=tmp_path,
            network=f"http://user:secret@{address}",
            orchestrator=f"http://{address}",
            data_dir=tmp_path / "data",
        )
        begun = time.monotonic()
        facts = await gather(settings, Role.MINER, deadline_s=0.2)
        assert time.monotonic() - begun < DEADLINE_S / 2
    found = {finding.check: finding for finding in findings(facts)}
    for check, flag in (("chain", "--chain-endpoint"), ("orchestrator", "--orchestrator URL")):
        assert found[check].verdict is Severity.PROBLEM
        assert "no answer in time" in found[check].found
        assert address in found[check].found
        assert flag in (found[check].remedy or "")
    assert found["hotkey"].verdict is Severity.OK
    assert "secret" not in repr(found)


async def test_the_command_itself_ends_within_its_deadline_when_all_hangs(tmp_path: Path) -> None:
    """7 s for the questions and half a second to hang up: 10 s leave room for a slow start."""
    create_hotkey("w", "h", tmp_path)
    assert DEADLINE_S <= 7.0
    async with silent_server() as address, asyncio.timeout(60):
        url = f"http://{address}"
        code, found = await Node(tmp_path, url, url).doctor("miner")
    assert code == 1
    assert "answer" in found["chain"]["found"]
    assert "--chain-endpoint" in found["chain"]["remedy"]


async def test_a_question_is_given_up_at_its_end() -> None:
    never = asyncio.Event()
    assert await answer_to(never.wait(), asyncio.get_running_loop().time()) == Unknown("no answer in time")


def test_a_look_up_that_hangs_keeps_no_process_alive() -> None:
    stuck = threading.Event()

    async def ask() -> object:
        asyncio.get_running_loop().set_default_executor(DaemonThreads())
        look_up = asyncio.get_running_loop().run_in_executor(None, stuck.wait)
        return await answer_to(look_up, asyncio.get_running_loop().time())

    try:
        assert asyncio.run(ask()) == Unknown("no answer in time")
    finally:
        stuck.set()


async def test_the_orchestrators_date_tells_how_far_off_the_clock_is(tmp_path: Path) -> None:
    async with orchestrator(tmp_path / "journal.db") as run:
        settings = ValidatorSettings.load(
            wallet_path=tmp_path, network="http://127.0.0.1:9", orchestrator=run.url, data_dir=tmp_path
        )
        facts = await gather(settings, Role.VALIDATOR, now=lambda: time.time() + 60)
    assert isinstance(facts.orchestrator, OrchestratorFacts)
    assert facts.orchestrator.clock_ahead_s == pytest.approx(60, abs=2)
    clock = next(finding for finding in findings(facts) if finding.check == "clock")
    assert "s ahead of the orchestrator's" in clock.found
    assert "timedatectl set-ntp true" in (clock.remedy or "")


async def test_a_stranger_in_the_orchestrators_place_is_no_orchestrator(tmp_path: Path) -> None:
    async def flood(_: web.Request) -> web.Response:
        return web.Response(body=bytes(2 << 20))

    app = web.Application()
    app.router.add_get("/v1/run", flood)
    async with TestServer(app) as server:
        settings = MinerSettings.load(
            wallet_path=tmp_path, network="http://127.0.0.1:9", orchestrator=str(server.make_url(""))
        )
        facts = await gather(settings, Role.MINER)
    assert isinstance(facts.orchestrator, Unknown)
    assert "sends more than an orchestrator would" in facts.orchestrator.reason
