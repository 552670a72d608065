"""`iota-orchestrator` as a process: its mistakes in one sentence, its size, its orderly end."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from iota.identity.keys import Hotkey, create_hotkey
from iota.protocol.messages import PROTOCOL_VERSION
from iota.spec import DataSpec
from orchestrator.journal import SqliteJournal
from tests.support.orchestrators import make_spec
from tests.support.samples import MANIFEST

MEMORY_MB = 150


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    """A complete and right command line, with a ledger that nobody serves."""
    manifest = MANIFEST.content_digest()
    spec = make_spec().model_copy(
        update={"data": DataSpec(manifest=manifest, sequence_length=8, sequences=1)}
    )
    (tmp_path / "spec.json").write_bytes(spec.canonical())
    (tmp_path / "manifest.json").write_bytes(MANIFEST.canonical())
    (tmp_path / "secret").write_text("0123456789abcdef0123456789abcdef")
    (tmp_path / "allow").write_text(f"{Hotkey.from_seed(b'a' * 32).ss58}  # a miner\n\n")
    create_hotkey("w", "h", tmp_path / "wallets")
    return [
        f"--spec={tmp_path / 'spec.json'}",
        f"--journal={tmp_path / 'journal'}",
        "--store=http://127.0.0.1:9",
        f"--store-secret-file={tmp_path / 'secret'}",
        f"--manifest={tmp_path / 'manifest.json'}",
        "--host=127.0.0.1",
        "--port=0",
        "--wallet.name=w",
        "--wallet-hotkey=h",
        f"--wallet.path={tmp_path / 'wallets'}",
        "--network=http://127.0.0.1:9",
        f"--allow={tmp_path / 'allow'}",
    ]


def command(arguments: list[str], *changes: str) -> list[str]:
    """The command line, with some options replaced."""
    names = {change.partition("=")[0] for change in changes}
    kept = [a for a in arguments if a.partition("=")[0] not in names]
    return [sys.executable, "-m", "orchestrator.cli", "start", *kept, *changes]


def refusal(arguments: list[str], *changes: str) -> str:
    """The sentence of a start that must fail."""
    done = subprocess.run(command(arguments, *changes), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in done.stderr
    return lines[0]


@contextmanager
def started(arguments: list[str], *changes: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(command(arguments, *changes), stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("run "), line
        yield process, line.split()[-1]
    finally:
        process.kill()
        process.wait(10)
        assert process.stdout is not None
        process.stdout.close()


def test_it_stays_small_without_torch_and_stops_on_a_signal(arguments: list[str]) -> None:
    with started(arguments) as (process, url):
        with urllib.request.urlopen(url + "/v1/run", timeout=10) as answer:
            assert json.load(answer)["versions"] == [PROTOCOL_VERSION]
        watched = psutil.Process(process.pid)
        assert not [m.path for m in watched.memory_maps() if "torch" in m.path]
        assert watched.memory_info().rss < MEMORY_MB << 20
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - begun < 5


def test_a_port_in_use_is_named_with_the_remedy_and_no_journal_is_left(
    arguments: list[str], tmp_path: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        sentence = refusal(arguments, f"--port={port}", f"--journal={tmp_path / 'new.db'}")
        assert str(port) in sentence
        assert "--port" in sentence
    assert not list(tmp_path.glob("new*"))


def test_a_wrong_spec_is_named_by_field(arguments: list[str], tmp_path: Path) -> None:
    document = json.loads((tmp_path / "spec.json").read_text())
    document["layout"]["cuts"] = [1, 2]
    (tmp_path / "bad.json").write_text(json.dumps(document))
    assert "layers" in refusal(arguments, f"--spec={tmp_path / 'bad.json'}")
    assert "--spec" in refusal(arguments, f"--spec={tmp_path / 'none.json'}")


def test_another_runs_journal_is_refused(arguments: list[str], tmp_path: Path) -> None:
    SqliteJournal(tmp_path / "other", make_spec(steps=9), Hotkey.from_seed(b"x" * 32).ss58).close()
    assert "a journal of its own" in refusal(arguments, f"--journal={tmp_path / 'other'}")


def test_a_missing_wallet_is_named(arguments: list[str]) -> None:
    assert "nobody" in refusal(arguments, "--wallet.name=nobody")


def test_a_manifest_that_is_not_the_specs_is_refused(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("{}")
    assert "the spec names" in refusal(arguments, f"--manifest={tmp_path / 'm.json'}")


def test_a_wrong_line_in_the_allow_list_is_named(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "list").write_text("\nsomebody\n")
    assert "line 2" in refusal(arguments, f"--allow={tmp_path / 'list'}")


def test_a_chain_that_cannot_be_read_at_the_start_holds_up_no_orchestrator(arguments: list[str]) -> None:
    arguments = [a for a in arguments if not a.startswith("--allow")]
    with (
        started(arguments, "--netuid=9") as (_, url),
        urllib.request.urlopen(f"{url}/healthz", timeout=10) as answer,
    ):
        assert answer.status == 200
