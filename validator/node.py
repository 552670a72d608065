"""The validator's shell: it commits its links, joins, listens for seals, and has them audited in turn."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from iota.chain import Chain
from iota.compute.precision import device_class
from iota.data.manifest import parse_manifest
from iota.data.reader import ShardReader
from iota.data.samples import Samples
from iota.protocol.client import OrchestratorClient
from iota.protocol.conversation import Conversation
from iota.protocol.events import AuditsClosed, EpochClose, RunEnd, SnapshotReady
from iota.protocol.keys import Hotkey
from iota.protocol.messages import PROTOCOL_VERSION, Capabilities, JoinRequest, NodeStatus, Role, Verdict
from iota.spec import RunSpec
from iota.store.transfer import ObjectClient
from validator.audit import Auditor
from validator.budget import Budget, Worker
from validator.epoch_audits import STORED_S, EpochAudits
from validator.evidence import Evidence
from validator.fetch import Fetcher
from validator.filing import Filing
from validator.heldout import BATCHES
from validator.links import LinkChain, load_or_create_seed
from validator.notebook import Notebook
from validator.onchain import OnChain
from validator.snapshots import Snapshots
from validator.weighing import Weigher

log = logging.getLogger(__name__)

CACHE_BYTES: Final = 1 << 30
STATUS_S: Final = 2.0
_SNAPSHOT: Final = 1 / 3
"""Share of the audit deadline that a miner has to deliver a snapshot."""
_MOST_SEALS: Final = 4096


@dataclass(frozen=True)
class ValidatorOptions:
    data_dir: Path
    compute_share: float = 0.10
    """Largest share of the machine's compute that this process may use."""
    threads: int = 1
    most_threads: int = 1
    """Threads that a replay may use to match a miner's device class."""
    heldout_batches: int = BATCHES


class ValidatorNode:
    """One validator from its commitment on the chain to its last weights."""

    def __init__(
        self,
        options: ValidatorOptions,
        hotkey: Hotkey,
        client: OrchestratorClient,
        objects: ObjectClient,
        chain: Chain,
        netuid: int,
    ) -> None:
        self._options, self._hotkey = options, hotkey
        self._client, self._objects = client, objects
        self._chain = OnChain(chain, netuid, hotkey.ss58)
        running_s = time.time() - psutil.Process().create_time()
        self._budget = Budget(options.compute_share, already_s=max(0.0, running_s))
        self._seals: asyncio.Queue[tuple[EpochClose, float] | None] = asyncio.Queue(_MOST_SEALS)

    async def run(self) -> None:
        """Take part until the run ends, then set weights once more.

        Raises:
            ValueError: what the operator can put right (directory, registration).
            Problem, OrchestratorUnreachable: the orchestrator refuses, or is gone.
            ChainError: the chain cannot be reached at the start.
        """
        info = await self._client.run()
        folder = self._options.data_dir / info.run[:16]
        worker = Worker(self._budget)
        try:
            with Notebook(folder, info.run, self._hotkey.ss58) as notebook:
                await self._take_part(info.spec, folder, notebook, worker)
        finally:
            await asyncio.to_thread(worker.close)

    async def _take_part(self, spec: RunSpec, folder: Path, notebook: Notebook, worker: Worker) -> None:
        links = LinkChain(load_or_create_seed(folder / "links.seed"), spec.schedule.epochs)
        await self._chain.open()
        await self._chain.commit_tip(spec.id, links.tip)
        manifest = parse_manifest(await self._client.manifest(), spec.data.manifest)
        fetcher = Fetcher(self._client, self._objects)
        reader = ShardReader(manifest, fetcher.piece, self._options.data_dir / "cache", CACHE_BYTES)
        samples = Samples(spec, reader)
        evidence = Evidence(spec, self._client, fetcher, samples)
        reply = await self._client.join(self._join_request(links.tip))
        async with Conversation(self._client, reply.cursor, stored=reply.receipts) as talk:
            patience_s = spec.audit.deadline_s * _SNAPSHOT
            snapshots = Snapshots(spec, fetcher, lambda w: talk.say(reports=[w]), self._is_live, patience_s)
            auditor = Auditor(
                spec,
                evidence,
                snapshots,
                worker,
                threads=self._options.threads,
                most_threads=self._options.most_threads,
            )

            def say(verdict: Verdict) -> None:
                talk.say(reports=[verdict])

            audits = EpochAudits(
                self._client,
                talk,
                self._chain,
                links,
                notebook,
                Filing(spec.id, self._hotkey, notebook, say),
                evidence,
                samples,
                snapshots,
                auditor,
                worker,
                self._options.heldout_batches,
            )
            weigher = Weigher(
                spec.audit, notebook, self._chain, self._budget, lambda report: talk.say(reports=[report])
            )
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(self._listen(talk, audits, snapshots), name="listen"),
                    tasks.create_task(self._tell_status(talk, audits, worker), name="status"),
                    tasks.create_task(weigher.weigh(), name="weigh"),
                ]
                while (sealed := await self._seals.get()) is not None:
                    seal, heard = sealed
                    await audits.take(seal, heard)
                    weigher.explain()
                for task in beside:
                    task.cancel()
            await weigher.set_last()
            await talk.settled(STORED_S)

    def _join_request(self, tip: str) -> JoinRequest:
        device = device_class("cpu", self._options.threads)
        memory = psutil.virtual_memory().available
        return JoinRequest(
            role=Role.VALIDATOR,
            versions=(PROTOCOL_VERSION,),
            capabilities=Capabilities(device=device, memory=memory, flops=0.0),
            link=tip,
        )

    async def _listen(self, talk: Conversation, audits: EpochAudits, snapshots: Snapshots) -> None:
        async for delivered in talk.events():
            match delivered.event:
                case EpochClose() as seal:
                    await self._seals.put((seal, time.monotonic()))
                case SnapshotReady() as ready:
                    snapshots.arrived(ready)
                case AuditsClosed() as closed:
                    audits.close(closed.epoch)
                case RunEnd():
                    await self._seals.put(None)
                case _:
                    pass

    async def _is_live(self, hotkey: str) -> bool:
        members = (await self._client.status())["members"]
        return any(m["hotkey"] == hotkey and m["live"] for m in members)

    async def _tell_status(self, talk: Conversation, audits: EpochAudits, worker: Worker) -> None:
        process = psutil.Process()
        while True:
            talk.status = NodeStatus(
                state=audits.doing[:200],
                seconds={"replay": worker.busy_s, "wait": self._budget.paused_s},
                memory=process.memory_info().rss,
            )
            await asyncio.sleep(STATUS_S)
