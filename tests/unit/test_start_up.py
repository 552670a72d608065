"""Commands start fast: what is heavy is imported only by what computes, signs or talks to the chain."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch",
    "transformers",
    "datasets",
    "bittensor",
    "bittensor_core",
    "numpy",
    "pyarrow",
    "boto3",
    "aiohttp",
)
LOADING = ("dotenv", "iota.settings.environment", "iota.settings.validation", "iota.chain")
PROBE = """
import sys
module = sys.argv.pop(1)
try:
    __import__(module, fromlist=["main"]).main()
except SystemExit as ended:
    print("ended", ended.code)
print("loaded", *sorted(set(sys.modules)))
"""


def unreachable() -> str:
    """The URL of a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("module", "arguments", "code"),
    [
        ("iota.cli.main", ["--help"], 0),
        ("iota.cli.main", ["status", "--help"], 0),
        ("iota.cli.main", ["status", "--orchestrator", unreachable()], 1),
        ("iota.cli.main", ["doctor", "--help"], 0),
        ("iota.cli.main", ["wallet", "new", "--help"], 0),
        ("iota.cli.main", ["chain", "show", "--help"], 0),
        ("iota.cli.main", ["store", "serve", "--help"], 0),
        ("miner.cli", ["--help"], 0),
        ("miner.cli", ["start", "--help"], 0),
        ("miner.cli", ["register", "--help"], 0),
        ("validator.cli", ["--help"], 0),
        ("validator.cli", ["start", "--help"], 0),
        ("validator.cli", ["register", "--help"], 0),
        ("orchestrator.cli", ["--help"], 0),
        ("orchestrator.cli", ["start", "--help"], 0),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else str(value),
)
def test_a_command_that_needs_nothing_heavy_loads_nothing_heavy(
    tmp_path: Path, module: str, arguments: list[str], code: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, module, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if not k.startswith(("IOTA_", "BT_"))},
    )
    lines = done.stdout.splitlines()
    assert f"ended {code}" in lines, done.stdout + done.stderr
    loaded = set(lines[-1].split())
    assert "typer" in loaded
    heavy = set(HEAVY) - ({"aiohttp"} if "--orchestrator" in arguments else set())  # it asks over HTTP
    assert loaded.isdisjoint(heavy), loaded & heavy
    if "--help" in arguments:
        assert loaded.isdisjoint(LOADING), "settings are declared without what reads and checks them"
    if arguments == ["--help"]:
        assert "pydantic" not in loaded, "typer itself imports it to parse a command's own flags"
