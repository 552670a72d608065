"""`iota-miner register` as a person sees it: a real command on a terminal, the SDK, and a node of a chain."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from iota.identity.coldkey import create_coldkey
from iota.identity.keys import create_hotkey
from tests.support.pseudo_terminal import at_a_terminal

PASSWORD = "correct horse Battery 1"


@dataclass
class Node:
    """A loopback node in a process of its own."""

    process: subprocess.Popen[str]
    url: str

    def tell(self, **command: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        assert answer["ok"], answer
        return answer["result"]


@pytest.fixture
def node() -> Iterator[Node]:
    command = [sys.executable, "-m", "tests.support.subtensor", "--instant", "--slot-time", "0.25"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield Node(process, json.loads(process.stdout.readline())["url"])
        process.terminate()


@pytest.mark.parametrize("agrees", [True, False])
def test_a_person_reads_the_price_agrees_and_types_the_password(
    tmp_path: Path, node: Node, agrees: bool
) -> None:
    hotkey = create_hotkey("w", "h", tmp_path).ss58
    coldkey = create_coldkey("w", tmp_path, PASSWORD)[0].ss58
    node.tell(do="fund", address=coldkey, tao=5)
    flags = [
        "--network",
        node.url,
        "--wallet.name",
        "w",
        "--wallet.hotkey",
        "h",
        "--wallet.path",
        str(tmp_path),
    ]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("IOTA_", "BT_"))}
    home = {**clean, "HOME": str(tmp_path), "BITTENSOR_RUNTIME_CACHE_DIR": str(tmp_path / "cache")}
    answers = ["y", PASSWORD] if agrees else ["n"]
    code, said = at_a_terminal(["miner.cli", "register", *flags], answers, home)
    assert answers == [], said
    assert "5.0000 TAO, of which" in said
    assert coldkey in said
    assert PASSWORD not in said
    assert (code, f"{hotkey} is uid" in said) == ((0, True) if agrees else (2, False)), said
    assert ("nothing was sent" in said) is not agrees
    again, said = at_a_terminal(["miner.cli", "register", *flags], ["n"], home)
    assert (again, "Pay" in said) == ((0, False) if agrees else (2, True)), said
