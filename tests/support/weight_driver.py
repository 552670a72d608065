"""A process that sets weights as a validator does, and kills itself where it is told to.

    python -m tests.support.weight_driver NETWORK WALLETS FOLDER SCORES [--kill POINT] [--after-s SECONDS]

NETWORK is what `open_chain` takes: the URL of a ledger or of a node. SCORES is JSON, weight by hotkey.
The hotkey is `validator` of the wallet `swarm`. POINT is a `Point`, or "under way": then the process
dies SECONDS after the write was begun. Not killed, it ends once the weights are in force, or hidden
until a reveal, with its plans as JSON on its standard output.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from iota.chain import open_chain
from iota.identity.hotkey_lock import hold_hotkey
from iota.identity.keys import load_hotkey
from validator.chain import SubnetChain
from validator.database import Database
from validator.weights.plan import Point
from validator.weights.setter import WeightSetter

NETUID = 9
UNDER_WAY = "under way"
WALLET, HOTKEY = "swarm", "validator"
RUN = "ab" * 32
SENDING_S = 2.0
"""A ledger or node on this machine hears of a write at once."""


def die() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a process outlived its SIGKILL")


class DyingSender(SubnetChain):
    """Dies some time after a write was begun, wherever that is then."""

    after_s = 0.0

    async def send(self, row: Mapping[int, int], version_key: int) -> Any:
        # A thread: the event loop may be busy, and a kill waits for nobody.
        threading.Timer(self.after_s, die).start()
        await super().send(row, version_key)
        return await asyncio.Event().wait()


def killer(wanted: str | None) -> Callable[[Point], None]:
    def at(point: Point) -> None:
        if point == wanted:
            die()

    return at


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("network")
    parser.add_argument("wallets", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("scores", type=json.loads)
    parser.add_argument("--kill")
    parser.add_argument("--after-s", type=float, default=0.0)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    key = load_hotkey(WALLET, HOTKEY, given.wallets)
    kind = DyingSender if given.kill == UNDER_WAY else SubnetChain
    with hold_hotkey(WALLET, HOTKEY, given.wallets), Database(given.folder, RUN, key.ss58) as database:
        async with open_chain(given.network, key) as chain:
            dealings = kind(chain, NETUID, key.ss58)
            if isinstance(dealings, DyingSender):
                dealings.after_s = given.after_s
            setter = WeightSetter(
                dealings,
                database.weights,
                lambda: dict(given.scores),
                0.0,
                at=killer(given.kill),
                sending_s=SENDING_S,
            )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(setter.run())
                await setter.finish(120.0)
        print(json.dumps(database.weights.shown()))


if __name__ == "__main__":
    asyncio.run(main())
