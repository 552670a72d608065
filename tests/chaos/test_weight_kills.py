"""A validator is killed with SIGKILL at each point of setting weights: after its restart exactly one row."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from iota.chain import open_chain
from iota.identity.keys import Hotkey, create_hotkey
from iota.protocol.messages import Role
from tests.support.weight_driver import HOTKEY, NETUID, UNDER_WAY, WALLET
from tests.support.weight_lives import MINERS, ROOT, ROW, live
from validator.weights.plan import Point

BLOCK_S, TEMPO = 0.25, 100_000
"""All that these tests write is of one tempo."""
COUNT = """
create table accepted (uid integer, block integer);
create trigger count_accepted after update of weights_block on neurons
    begin insert into accepted values (new.uid, new.weights_block); end;
"""
"""The ledger keeps a validator's newest weights only: its database counts all that it accepts."""


class Ledger:
    """`iota ledger serve` as a process."""

    def __init__(self, db: Path, reveal_blocks: int) -> None:
        self.db = db
        options = {
            "--db": db, "--port": 0, "--block-time": BLOCK_S, "--tempo": TEMPO,
            "--weights-rate-limit": 2, "--reveal-blocks": reveal_blocks,
        }  # fmt: skip
        self._command = [sys.executable, "-m", "iota.cli.main", "ledger", "serve"]
        self._command += [str(x) for pair in options.items() for x in pair]

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[3]

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)
        assert self._process.stdout is not None
        self._process.stdout.close()

    async def register(self, key: Hotkey, role: Role) -> int:
        async with open_chain(self.url, key) as chain:
            (await chain.register(NETUID, role)).check()
            uid = await chain.uid(NETUID, key.ss58)
        assert uid is not None
        return uid

    async def row(self, hotkey: str) -> dict[str, int]:
        """A validator's row by hotkey, once there is one."""
        async with open_chain(self.url) as chain, asyncio.timeout(60):
            while True:
                neurons = (await chain.subnet(NETUID)).neurons
                for row in await chain.weights(NETUID):
                    if row.hotkey == hotkey:
                        return {neurons[uid].hotkey: weight for uid, weight in row.weights.items()}
                await asyncio.sleep(BLOCK_S)

    def accepted(self) -> dict[int, list[int]]:
        """Blocks of all weights that the stopped ledger took, by the validator's uid."""
        found: dict[int, list[int]] = {}
        with closing(sqlite3.connect(self.db)) as db:
            for uid, block in db.execute("select uid, block from accepted"):
                found.setdefault(uid, []).append(block)
        return found


@pytest.fixture(scope="module", params=[0, 4], ids=["plain", "commit"])
def ledger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    made = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.db", request.param)
    made.start()
    for key in MINERS:
        asyncio.run(made.register(key, Role.MINER))
    made.stop()
    with closing(sqlite3.connect(made.db)) as db:
        db.executescript(COUNT)
    made.start()
    yield made
    made.stop()


def check_one_row(ledger: Ledger, folder: Path, *kill: str) -> None:
    key = create_hotkey(WALLET, HOTKEY, folder / "wallets")
    uid = asyncio.run(ledger.register(key, Role.VALIDATOR))
    killed = live(ledger.url, folder, *kill)
    assert killed.code == -signal.SIGKILL, killed.log
    again = live(ledger.url, folder)
    assert again.code == 0, again.log
    assert again.plans[0]["state"] in ("in force", "landed")
    assert asyncio.run(ledger.row(key.ss58)) == ROW
    ledger.stop()
    try:
        assert ledger.accepted()[uid] == [again.plans[0]["block"]]
    finally:
        ledger.start()


@pytest.mark.parametrize("point", list(Point))
def test_killed_at_a_point(ledger: Ledger, tmp_path: Path, point: Point) -> None:
    check_one_row(ledger, tmp_path, "--kill", point)


@pytest.mark.parametrize("after_ms", [0, 1, 3, 10, 50])
def test_killed_while_the_request_is_under_way(ledger: Ledger, tmp_path: Path, after_ms: int) -> None:
    check_one_row(ledger, tmp_path, "--kill", UNDER_WAY, "--after-s", str(after_ms / 1000))
