"""A real miner on a run of one stage, between whom and its servers faults stand, all in one process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iota.compute.engine import Engine
from iota.console.watch import Watch
from iota.data import Manifest, manifest_id
from iota.identity.keys import create_hotkey
from iota.settings import MinerSettings
from iota.spec import RunSpec
from iota.store import EmbeddedStore
from iota.store.embedded_server import make_app
from miner.run import mine
from tests.support.data_sets import prepare_made_up
from tests.support.fault_proxies import FaultProxy, fault_proxy
from tests.support.live_swarm import tiny
from tests.support.orchestrators import Running, orchestrator, until
from tests.support.store_servers import SECRET, serving

SCALE = 0.02
"""Half a minute is 0.6 s."""


@dataclass
class Machine:
    """What fails the miner on its own machine, at a seam that it has: its engine."""

    error: Exception | None = None

    def engine(self, *args: Any, **kwargs: Any) -> Engine:
        machine = self

        class Failing(Engine):
            def step(self, *given: Any, **options: Any) -> Any:
                machine.check()
                return super().step(*given, **options)

        self.check()
        return Failing(*args, **kwargs)

    def check(self) -> None:
        if self.error is not None:
            raise self.error


@dataclass
class Bench:
    """A run that trains for as long as the test likes."""

    folder: Path
    running: Running
    server: FaultProxy
    """Before the orchestrator."""
    store: FaultProxy
    machine: Machine = field(default_factory=Machine)
    node: asyncio.Task[None] | None = None

    def start(self, scale: float = SCALE, **given: Any) -> None:
        """Start the miner, with further settings that are given."""
        settings = MinerSettings.of(
            **given,
            orchestrator=self.server.url,
            data_dir=self.folder / "data",
            wallet_name="w",
            wallet_hotkey="h",
            wallet_path=self.folder / "wallets",
            threads=1,
            device="cpu",
        )
        watch = Watch(scale=scale)
        self.node = asyncio.create_task(mine(settings, make_engine=self.machine.engine, watch=watch))

    @property
    def receipts(self) -> int:
        """Receipts that the orchestrator has: grows while the miner works."""
        return sum(member.receipts for member in self.running.coordinator.members.values())

    async def works(self, timeout_s: float = 30.0) -> None:
        """Wait until the miner makes receipts; fails with its error if it ends."""
        before = self.receipts
        await until(lambda: self.receipts > before + 3 or self.ended(), timeout_s)
        assert not self.ended(), "the miner ended"

    def ended(self) -> bool:
        """Whether the miner has ended; raises its error."""
        if self.node is not None and self.node.done():
            self.node.result()
            return True
        return False


@asynccontextmanager
async def bench(folder: Path, shards: Path, manifest: Manifest, **schedule: Any) -> AsyncIterator[Bench]:
    """An orchestrator, a store that serves `shards`, and proxies before both; no miner yet."""
    create_hotkey("w", "h", folder / "wallets")
    async with serving(make_app(shards, SECRET)) as store_url, fault_proxy(store_url) as store_proxy:
        store = EmbeddedStore(store_url, SECRET, public_url=store_proxy.url)
        async with (
            orchestrator(
                folder / "journal", one_stage(manifest, **schedule), store=store,
                manifest=manifest.canonical(), silence_s=60.0,
            ) as running,
            fault_proxy(running.url) as server_proxy,
        ):  # fmt: skip
            made = Bench(folder, running, server_proxy, store_proxy)
            try:
                yield made
            finally:
                if made.node is not None:
                    made.node.cancel()
                    await asyncio.wait([made.node])
                await store.close()


def one_stage(manifest: Manifest, **changes: Any) -> RunSpec:
    given: dict[str, Any] = {"stages": 1, "epochs": 1, "steps_per_epoch": 200, "microbatches": 2}
    options = tiny(**{**given, "sequence_length": 16, "sequences": 1, **changes})
    return options.spec(manifest_id(manifest), manifest.tokenizer.vocab_size, manifest.heldout.tokens)


def made_data(folder: Path) -> Manifest:
    return prepare_made_up(folder, count=400, shard_tokens=8_000, heldout_tokens=2_000)
