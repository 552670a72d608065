"""Every condition of docs/conditions.md, in a starting and a running miner: it works again afterwards."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import torch
from aiohttp import web

from iota.console.conditions import DAY_S, Condition
from iota.console.watch import ConditionStands
from iota.data import Manifest
from iota.identity.keys import create_hotkey
from iota.protocol.problems import Problem, ProblemType, Standing
from miner.op_records import StateLost
from tests.support.certificates import self_signed
from tests.support.conditioned_nodes import Bench, bench, made_data, one_stage
from tests.support.fault_proxies import Fault, page, problem
from tests.support.orchestrators import orchestrator, until

Turn = Callable[[Bench], Awaitable[None]]


def answers(fault: Fault) -> tuple[Turn, Turn]:
    async def on(at: Bench) -> None:
        await at.server.set_fault(fault)

    async def off(at: Bench) -> None:
        await at.server.set_fault(None)

    return on, off


def stored(fault: Fault) -> tuple[Turn, Turn]:
    async def on(at: Bench) -> None:
        await at.store.set_fault(fault)

    async def off(at: Bench) -> None:
        await at.store.set_fault(None)

    return on, off


def failing(error: Exception) -> tuple[Turn, Turn]:
    async def on(at: Bench) -> None:
        at.machine.error = error

    async def off(at: Bench) -> None:
        at.machine.error = None

    return on, off


def not_admitted(why: Standing) -> tuple[Turn, Turn]:
    async def on(at: Bench) -> None:
        at.running.members.only, at.running.members.why = set(), why

    async def off(at: Bench) -> None:
        at.running.members.only = None

    return on, off


async def refuse(at: Bench) -> None:
    await at.server.set_fault(page(503))  # ends the open requests
    await at.server.down()


async def listen(at: Bench) -> None:
    await at.server.set_fault(None)
    await at.server.up()


MISSING = page(404)
ROWS: dict[str, tuple[Condition, tuple[Turn, Turn]]] = {
    "refused connection": (Condition.AWAY, (refuse, listen)),
    "503 of a proxy": (Condition.BUSY, answers(page(503))),
    "500": (Condition.BUSY, answers(page(500))),
    "429": (Condition.BUSY, answers(page(429))),
    "captive portal": (Condition.STRANGER, answers(page(200))),
    "redirect": (Condition.STRANGER, answers(page(302, Location="https://portal.example"))),
    "another server": (Condition.STRANGER, answers(page(404))),
    "clock": (Condition.CLOCK, answers(problem(Problem(ProblemType.STALE, "+3.0 s"), "POST"))),
    "not registered": (Condition.NOT_REGISTERED, not_admitted(Standing.NOT_REGISTERED)),
    "no permit": (Condition.NO_PERMIT, not_admitted(Standing.NO_PERMIT)),
    "not listed": (Condition.NOT_LISTED, not_admitted(Standing.NOT_LISTED)),
    "versions": (Condition.VERSIONS, answers(problem(Problem(ProblemType.VERSION_MISMATCH, "2"), "POST"))),
    "refused": (Condition.REFUSED, answers(problem(Problem(ProblemType.BAD_RECEIPTS, "no"), "POST"))),
    "store away": (Condition.STORE_AWAY, stored(page(503))),
    "store refuses": (Condition.STORE_REFUSES, stored(page(403))),
    "store full": (Condition.STORE_FULL, stored(page(507))),
    "shards away": (Condition.DATA, stored(MISSING)),
    "disk full": (Condition.DISK_FULL, failing(OSError(errno.ENOSPC, "No space left on device"))),
    "input/output error": (Condition.MACHINE, failing(OSError(errno.EIO, "Input/output error"))),
    "no memory": (Condition.MEMORY, failing(torch.OutOfMemoryError("CUDA out of memory"))),
    "state lost": (Condition.STATE_LOST, failing(StateLost("again"))),
}
ELSEWHERE = {
    Condition.CERTIFICATE: "test_a_wrong_certificate",
    Condition.OTHER_RUN: "test_another_run",
    Condition.HUB: "tests/chaos/test_hub_conditions.py",
    Condition.CHAIN_AWAY: "tests/chaos/test_chain_conditions.py",
    Condition.CHAIN_ODD: "tests/chaos/test_chain_conditions.py",
    Condition.CHAIN_REFUSES: "tests/chaos/test_chain_conditions.py",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    shards = tmp_path_factory.mktemp("shards")
    return shards, made_data(shards)


@pytest.fixture
async def at(tmp_path: Path, data: tuple[Path, Manifest]) -> AsyncIterator[Bench]:
    async with bench(tmp_path, *data) as made:
        yield made


def test_every_condition_is_injected() -> None:
    assert {condition for condition, _ in ROWS.values()} | set(ELSEWHERE) == set(Condition)


@pytest.mark.parametrize("row", ROWS)
async def test_a_starting_miner_outlasts(row: str, at: Bench, caplog: pytest.LogCaptureFixture) -> None:
    condition, (on, off) = ROWS[row]
    await on(at)
    at.start()
    await until(lambda: condition.text in caplog.text or at.ended())
    await off(at)
    await at.works()


@pytest.mark.parametrize("row", ROWS)
async def test_a_running_miner_outlasts(row: str, at: Bench, caplog: pytest.LogCaptureFixture) -> None:
    condition, (on, off) = ROWS[row]
    caplog.set_level(logging.INFO)
    at.start()
    await at.works()
    await on(at)
    await until(lambda: condition.text in caplog.text or at.ended())
    await off(at)
    await at.works()
    await until(lambda: "it goes on after" in caplog.text)


async def test_a_wrong_certificate_is_outlasted_by_a_starting_and_by_a_running_miner(
    at: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trusted, strange = (certificate(tmp_path / name) for name in ("trusted", "strange"))
    # aiohttp makes this context at its import, so that a later SSL_CERT_FILE has no effect in this process.
    aiohttp.connector._SSL_CONTEXT_VERIFIED.load_verify_locations(tmp_path / "trusted" / "certificate.pem")

    async def present(shown: ssl.SSLContext) -> None:
        await refuse(at)
        at.server.secure = shown
        await listen(at)

    await present(strange)
    at.start()
    for _ in ("starting", "running"):
        await until(lambda: Condition.CERTIFICATE.text in caplog.text or at.ended())
        await present(trusted)
        await at.works()
        caplog.clear()
        await present(strange)


async def test_another_run_is_outlasted_by_a_starting_miner(
    at: Bench, data: tuple[Path, Manifest], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The orchestrator begins another run between the two first requests of a miner."""
    async with orchestrator(tmp_path / "other", one_stage(data[1], seed=5)) as other:

        def fault(request: web.Request) -> web.Response | None:
            at.server.target = other.url if request.path == "/v1/run" else at.running.url
            return None

        await at.server.set_fault(fault)
        at.start()
        await until(lambda: Condition.OTHER_RUN.text in caplog.text or at.ended())
    await at.server.set_fault(None)
    at.server.target = at.running.url
    await at.works()


async def test_another_run_is_outlasted_by_a_running_miner(
    at: Bench, data: tuple[Path, Manifest], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    at.start()
    await at.works()
    async with orchestrator(tmp_path / "other", one_stage(data[1], seed=5)) as other:
        at.server.target = other.url
        await until(lambda: Condition.OTHER_RUN.text in caplog.text or at.ended())
    at.server.target = at.running.url
    await at.works()


async def test_a_condition_that_stands_until_its_end_ends_the_miner_with_a_sentence(at: Bench) -> None:
    await at.server.set_fault(page(200))
    at.start(scale=0.5 / DAY_S)
    assert at.node is not None
    with pytest.raises(ConditionStands, match="captive portal"):
        await asyncio.wait_for(at.node, 30)


async def test_the_end_of_the_run_in_an_answer_of_somebody_else_ends_no_node(
    at: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    ended = Problem(ProblemType.RUN_ENDED, "this run has ended; join another one")
    await at.server.set_fault(problem(ended, "POST"))
    at.start()
    await until(lambda: Condition.STRANGER.text in caplog.text or at.ended())
    await at.server.set_fault(None)
    await at.works()


def certificate(folder: Path) -> ssl.SSLContext:
    """A server's context with a new self-signed certificate for localhost, which is in the folder."""
    folder.mkdir()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*self_signed(folder, "localhost"))
    return context


async def test_a_process_waits_for_an_orchestrator_that_is_not_up_yet(
    tmp_path: Path, data: tuple[Path, Manifest]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    hotkey = create_hotkey("w", "h", tmp_path / "wallets")
    command = [sys.executable, "-m", "miner.cli", "start", f"--orchestrator=http://127.0.0.1:{port}"]
    wallet = ["--wallet.name=w", "--wallet.hotkey=h", f"--wallet.path={tmp_path / 'wallets'}", "--device=cpu"]
    process = await asyncio.create_subprocess_exec(
        *command, *wallet, f"--data-dir={tmp_path / 'data'}", stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(60):
            while Condition.AWAY.text not in (line := (await process.stderr.readline()).decode()):
                assert line, "the process has ended"
        spec, manifest = one_stage(data[1]), data[1].canonical()
        async with orchestrator(tmp_path / "j", spec, port=port, manifest=manifest) as running:
            await until(lambda: hotkey.ss58 in running.coordinator.members, 60)
            process.send_signal(signal.SIGTERM)
            rest = (await process.stderr.read()).decode()
            assert await asyncio.wait_for(process.wait(), 20) == 0
        assert "it goes on after" in rest
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_miner_counts_that_it_waits_although_nothing_reaches_it(
    tmp_path: Path, data: tuple[Path, Manifest]
) -> None:
    """Its neighbour is not there."""
    async with bench(tmp_path, *data, stages=2) as made:
        made.start()

        async def waited() -> float:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"{made.running.url}/v1/status") as answer,
            ):
                document = await answer.json()
            assert document["waiting"].startswith("stage 1 has no replica") or not document["nodes"]
            return sum(node["seconds"]["wait"] for node in document["nodes"].values())

        async with asyncio.timeout(60):
            while await waited() < 2.0:  # noqa: ASYNC110 - the server's status is asked over HTTP
                await asyncio.sleep(0.1)
