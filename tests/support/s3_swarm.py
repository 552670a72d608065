"""A whole swarm whose object store is an S3 that runs already."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import sys
from dataclasses import dataclass
from pathlib import Path

from iota.client.run_objects import RunObjects
from iota.data import publish
from iota.data.manifest import parse_manifest
from iota.spec import RunSpec
from iota.store import ObjectClient, open_store
from iota.store.part_urls import PART
from iota.swarm.options import SwarmOptions
from iota.swarm.processes import Program
from iota.swarm.programs import Programs
from tests.support.live_swarm import LiveSwarm, Status, tiny
from tests.support.store_servers import StoreUrls


class S3Swarm(LiveSwarm):
    """`LiveSwarm` over the store at `store_url`, whose credentials are in the environment."""

    def __init__(self, root: Path, options: SwarmOptions, store_url: str, *, validator: bool = False) -> None:
        super().__init__(root, options, validator=validator)
        self.store_url = store_url

    def make_programs(self, ports: dict[str, int]) -> Programs:
        return _S3Programs(self.run_dir, ports, threads=1, device="cpu", store_url=self.store_url)

    def _prepare(self) -> RunSpec:
        spec = super()._prepare()
        asyncio.run(self._upload(spec))
        return spec

    async def _upload(self, spec: RunSpec) -> None:
        manifest = parse_manifest(self.run_dir.manifest_file.read_bytes(), spec.data.manifest)
        store = open_store(self.store_url)
        try:
            await publish(manifest, self.run_dir.store, store)
        finally:
            await store.close()


@dataclass(frozen=True)
class _S3Programs(Programs):
    store_url: str = ""

    def orchestrator(self) -> Program:
        program = super().orchestrator()
        at = program.arguments.index("--store")
        return dataclasses.replace(
            program,
            arguments=(*program.arguments[: at + 1], self.store_url, *program.arguments[at + 4 :]),
        )


async def train(root: Path, store_url: str) -> Status:
    """The status at the end of a small run in the folder `root`, with a validator."""
    options = tiny(stages=2, microbatches=2, steps_per_epoch=2)
    async with S3Swarm(root, options, store_url, validator=True) as swarm:
        status = await swarm.finished()
        await swarm.validator_done(60)
        return status


async def move_large(store_url: str) -> None:
    """Store and read an object of three parts as a node does."""
    data = random.Random(7).randbytes(2 * PART + 77)
    store = open_store(store_url)
    try:
        await store.check()
        async with ObjectClient() as client:
            objects = RunObjects(StoreUrls(store), client)
            stored = await objects.put("large/object", data)
            assert await store.size(stored.key) == len(data)
            assert await objects.get_verified(stored) == data
        await store.delete_prefix("large")
    finally:
        await store.close()


async def main(store_url: str, root: Path) -> None:
    """Try a store with a large object, and with a run whose files go to the folder `root`."""
    await move_large(store_url)
    print("an object of three parts was stored and read", flush=True)
    print(f"a run of {(await train(root, store_url))['settled']} microbatches trained")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
