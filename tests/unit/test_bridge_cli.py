"""`iota bridge`, against a real orchestrator on loopback."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from iota.cli import bridge as cli
from iota.cli import orchestrator_calls
from iota.client.bridge import BridgeClient
from iota.identity.keys import hotkey_path
from iota.protocol.bridge import MAX_PAGE, Set
from iota.protocol.problems import Problem, ProblemType
from tests.support.orchestrators import ORCHESTRATOR, Running, orchestrator


def keep_key(path: Path) -> None:
    """Write the operator's key to a file of a wallet."""
    path.parent.mkdir(parents=True)
    seed = "0x" + (b"o" * 32).hex()
    path.write_text(
        json.dumps({"secretSeed": seed, "ss58Address": ORCHESTRATOR.ss58, "accountId": "", "publicKey": ""})
    )


@pytest.fixture
def wallet(tmp_path: Path) -> list[str]:
    """Flags that name a wallet with the operator's key."""
    keep_key(hotkey_path("w", "boss", tmp_path))
    return ["--wallet.name", "w", "--wallet.hotkey", "boss", "--wallet.path", str(tmp_path)]


async def iota(running: Running, wallet: list[str], *arguments: str) -> Result:
    """Run a command in a thread: it has an event loop of its own."""
    where = ["--orchestrator", running.url, *wallet]
    return await asyncio.to_thread(CliRunner().invoke, cli.app, [*arguments, *where])


async def out(running: Running, wallet: list[str], *arguments: str) -> str:
    result = await iota(running, wallet, *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout.strip()


async def test_what_was_set_is_got_and_listed(tmp_path: Path, wallet: list[str]) -> None:
    async with orchestrator(tmp_path / "j") as running:
        assert await out(running, wallet, "set", "run/note", "half an hour") == "1"
        assert await out(running, wallet, "set", "run/paused", "true") == "2"
        assert await out(running, wallet, "set", "team/x", "7", "--type", "float", "--ttl", "60") == "3"
        assert await out(running, [], "get", "run/note") == '"half an hour"'
        assert await out(running, [], "get", "run/paused") == "true"
        assert running.coordinator.state.bridge.value("run/paused") == "true"
        shown = json.loads(await out(running, wallet, "get", "team/x", "--sign", "--json"))
        assert (shown["kind"], shown["version"], shown["owner"]) == ("float", 3, "run")
        assert "team/x" not in await out(running, [], "list")
        lines = (await out(running, wallet, "list", "--sign")).splitlines()
        assert [line.partition(" = ")[0] for line in lines] == ["run/note", "run/paused", "team/x"]
        missing = await iota(running, [], "get", "team/x")
        assert missing.exit_code != 0
        await out(running, wallet, "delete", "team/x")
        assert "team/x" not in await out(running, wallet, "list", "--sign")


async def test_the_folder_of_a_run_of_iota_up_has_its_operators_key(tmp_path: Path) -> None:
    keep_key(hotkey_path("swarm", "orchestrator", tmp_path / "run" / "wallets"))
    async with orchestrator(tmp_path / "j") as running:
        (tmp_path / "run" / "run.json").write_text(json.dumps({"url": running.url}))
        here = ["--run-dir", str(tmp_path / "run")]
        for command in (["set", "run/paused", "true"], ["get", "run/paused"], ["list", "run", "--sign"]):
            result = await asyncio.to_thread(CliRunner().invoke, cli.app, [*command, *here])
            assert result.exit_code == 0, (result.output, result.exception)
        assert running.coordinator.state.bridge.value("run/paused") == "true"


async def test_a_write_that_is_not_taken_says_why(tmp_path: Path, wallet: list[str]) -> None:
    async with orchestrator(tmp_path / "j") as running:
        await out(running, wallet, "set", "a", "1", "--rule", "cas", "--expect", "0")
        stale = await iota(running, wallet, "set", "a", "2", "--expect", "7")
        assert isinstance(stale.exception, Problem)
        assert stale.exception.type is ProblemType.CONFLICT
        assert "version 1, not 7" in str(stale.exception)
        high = await iota(running, wallet, "set", "run/lr-factor", "1.5")
        assert "between 0.001 and 1" in str(high.exception)


async def test_a_lease_is_taken_used_renewed_and_released(tmp_path: Path, wallet: list[str]) -> None:
    async with orchestrator(tmp_path / "j") as running:
        lease = await out(running, wallet, "lock", "job", "--for", "600")
        await out(running, wallet, "set", "job", '"mine"', "--type", "json", "--lease", lease)
        await out(running, wallet, "lock", "job", "--renew", lease)
        assert isinstance((await iota(running, wallet, "lock", "job")).exception, Problem)
        await out(running, wallet, "lock", "job", "--release", lease)
        assert int(await out(running, wallet, "lock", "job")) > int(lease)
        both = await iota(running, wallet, "lock", "job", "--renew", "1", "--release", "1")
        assert isinstance(both.exception, ValueError)


async def test_a_transaction_is_done_as_a_whole_or_not(tmp_path: Path, wallet: list[str]) -> None:
    async with orchestrator(tmp_path / "j") as running:
        ops = ['{"op":"set","name":"a","value":1}', '{"op":"set","name":"b","value":{"x":[1]}}']
        assert await out(running, wallet, "txn", *ops) == "1"
        failed = await iota(running, wallet, "txn", ops[0], '{"op":"check","name":"b","expected":9}')
        assert isinstance(failed.exception, Problem)
        odd = await iota(running, wallet, "txn", '{"op":"jump","name":"a"}')
        assert isinstance(odd.exception, ValueError)
        assert "these operations are none" in str(odd.exception)


async def test_a_watch_shows_what_there_is_and_then_what_changes(
    tmp_path: Path, wallet: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orchestrator_calls, "_PAUSE_S", 0.01)
    async with orchestrator(tmp_path / "j") as running, running.client(ORCHESTRATOR) as client:
        boss = BridgeClient(client)
        names = [f"run/{number:03}" for number in range(MAX_PAGE + 40)]
        for start in range(0, len(names), 32):
            await boss.write(*(Set(name=name, value=1) for name in names[start : start + 32]))
        changes = orchestrator_calls.variable_changes(running.url, "run", None)
        first = await asyncio.to_thread(next, changes)
        assert first.snapshot
        assert [change.name for change in first.changes] == names
        await boss.delete("run/000")
        second = await asyncio.to_thread(next, changes)
        assert [(change.name, change.kind) for change in second.changes] == [("run/000", "deleted")]
        await asyncio.to_thread(changes.close)  # type: ignore[attr-defined]
