"""`iota audit verify` in a fresh directory, with every server of the run stopped."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer
from typer.testing import CliRunner

from iota.chain import open_chain
from iota.cli.audit import app
from iota.data import Manifest
from iota.protocol.messages import Outcome, Verdict
from tests.support.bundles import members, rewritten
from tests.support.data_sets import prepare_made_up
from tests.support.validator_stages import KEY, NETUID, THOROUGH, set_up, small_ledger

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    out = tmp_path_factory.mktemp("data")
    return out, prepare_made_up(out, count=200, shard_tokens=8_000, heldout_tokens=2_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run")


@pytest.fixture(scope="module")
def judged(folder: Path, data: tuple[Path, Manifest]) -> tuple[list[Path], list[Verdict]]:
    """The bundles and the verdicts of a whole validator, whose run has a miner that sends noise."""
    return asyncio.run(_judge(folder, data))


async def _judge(folder: Path, data: tuple[Path, Manifest]) -> tuple[list[Path], list[Verdict]]:
    async with TestServer(small_ledger(folder)) as server:
        url = str(server.make_url("/"))
        async with open_chain(url, KEY) as chain:
            stage = await set_up(folder, url, chain, data, THOROUGH)
            await stage.validate()
    kept = folder / "validator" / stage.spec.id[:16] / "verdicts"
    return sorted(kept.glob("*.zip")), stage.orchestrator.verdicts_said()


def test_each_fail_of_a_run_is_repeated_when_all_of_it_is_gone(
    judged: tuple[list[Path], list[Verdict]], tmp_path: Path
) -> None:
    """By the command, in a process of its own, in an empty folder that stays empty."""
    bundles, verdicts = judged
    failed = [verdict for verdict in verdicts if verdict.outcome is Outcome.FAIL]
    assert failed
    assert len(bundles) == len(failed)
    command = [sys.executable, "-m", "iota.cli.main", "audit", "verify", str(bundles[0])]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the verdict is confirmed" in done.stdout
    assert "assumed: that block" in done.stdout
    assert "here: the replay gives " in done.stdout, done.stdout[-900:]
    assert list(tmp_path.iterdir()) == []


async def test_the_chain_confirms_what_is_assumed_without_it(
    judged: tuple[list[Path], list[Verdict]], folder: Path
) -> None:
    bundles, _ = judged
    async with TestServer(small_ledger(folder)) as server:  # the same ledger, started again
        flags = ["--network", str(server.make_url("/")), "--netuid", str(NETUID)]
        shown = await asyncio.to_thread(CliRunner().invoke, app, ["verify", str(bundles[-1]), *flags])
    assert shown.exit_code == 0, shown.output
    assert (
        "holds: the block's hash and the committed chain of the link are those of the chain" in shown.output
    )
    assert "assumed: that block" not in shown.output


def test_a_chain_that_does_not_answer_refutes_nothing_and_has_its_own_exit_code(
    judged: tuple[list[Path], list[Verdict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IOTA_NETWORK", "http://127.0.0.1:1")  # as the help says, a variable counts
    monkeypatch.setattr("iota.chain.ledger.client.RETRY_FOR_S", 0.1, raising=False)
    shown = CliRunner().invoke(app, ["verify", str(judged[0][0])])
    assert shown.exit_code == 3, shown.output
    assert "nothing is proven or refuted" in shown.output


@pytest.mark.parametrize("command", ["verify", "epoch"])
def test_the_help_says_what_a_check_does_without_a_chain_and_a_known_hotkey(command: str) -> None:
    shown = " ".join(CliRunner(env={"COLUMNS": "400"}).invoke(app, [command, "--help"]).output.split())
    assert "default: none: no chain is asked" in shown
    assert "finney)" not in shown
    assert "data directory" not in shown


def test_false_token_ids_are_assumed_without_the_data_and_refused_with_it(
    judged: tuple[list[Path], list[Verdict]], data: tuple[Path, Manifest], tmp_path: Path
) -> None:
    reading = next(path for path in judged[0] if any(name.startswith("tokens/") for name in members(path)))
    name = next(name for name in members(reading) if name.startswith("tokens/"))
    ids = members(reading)[name]
    false = rewritten(reading, tmp_path / "x.zip", {name: ids[4:] + ids[:4]}, manifest=True)
    flags = ["--data", str(data[0])]
    shown = CliRunner().invoke(app, ["verify", str(reading), *flags])
    assert shown.exit_code == 0, shown.output
    assert "holds: the token ids of" in shown.output
    assert "assumed: that the token ids" in CliRunner().invoke(app, ["verify", str(false)]).output
    shown = CliRunner().invoke(app, ["verify", str(false), *flags])
    assert shown.exit_code == 1
    assert f"does not hold: {name} are not the token ids of the data set" in shown.output


def test_what_replays_nothing_needs_no_torch() -> None:
    code = "import sys, iota.cli.audit, validator.audits.epoch_check; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_other_files_are_mistakes_of_the_user(tmp_path: Path) -> None:
    empty = tmp_path / "x.zip"
    empty.touch()
    assert "x.zip is empty" in str(CliRunner().invoke(app, ["verify", str(empty)]).exception)
    empty.write_text("no zip")
    assert "is no bundle" in str(CliRunner().invoke(app, ["verify", str(empty)]).exception)
    for data in (b"", b"{}", b"PK", b"PK\x05\x06" + bytes(18)):
        file = tmp_path / "x"
        file.write_bytes(data)
        assert isinstance(CliRunner().invoke(app, ["verify", str(file)]).exception, ValueError)
    assert isinstance(CliRunner().invoke(app, ["verify", str(tmp_path)]).exception, ValueError)
