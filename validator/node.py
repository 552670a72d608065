"""The validator's shell: it commits its links, joins, listens for seals, and has them audited in turn."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from iota.chain import Chain
from iota.client.conversation import Conversation
from iota.client.orchestrator import PATIENCE_S, OrchestratorClient, OrchestratorUnreachable
from iota.compute.determinism import device_class
from iota.data.manifest import parse_manifest
from iota.data.reader import ShardReader
from iota.data.samples import Samples
from iota.identity.keys import Hotkey
from iota.protocol.events import AuditsClosed, EpochClose, RunEnd, SnapshotReady
from iota.protocol.messages import (
    PROTOCOL_VERSION,
    Capabilities,
    JoinReply,
    JoinRequest,
    NodeStatus,
    Report,
    Role,
    Verdict,
    WeightsSet,
)
from iota.spec import RunSpec
from iota.store.transfer import ObjectClient
from validator.audits.audit import Auditor
from validator.audits.budget import Budget, Worker
from validator.audits.epoch_audits import STORED_S, EpochAudits
from validator.audits.evidence import Evidence
from validator.audits.fetch import Fetcher
from validator.audits.filing import Filing
from validator.audits.heldout import BATCHES
from validator.audits.links import LinkChain, load_or_create_seed
from validator.audits.snapshots import Snapshots
from validator.notebook import Notebook
from validator.onchain import OnChain
from validator.weights.chain import WeightChain
from validator.weights.plan import PlanState, WeightPlan
from validator.weights.setter import WeightSetter
from validator.weights.weighing import Weighing

log = logging.getLogger(__name__)

CACHE_BYTES: Final = 1 << 30
STATUS_S: Final = 2.0
_SNAPSHOT: Final = 1 / 3
"""Share of the audit deadline that a miner has to deliver a snapshot."""
_MOST_SEALS: Final = 4096
_GONE_S: Final = 86_400.0
"""An orchestrator that is away for longer than this has ended its run."""


@dataclass(frozen=True)
class ValidatorOptions:
    data_dir: Path
    compute_share: float = 0.10
    """Largest share of the machine's compute that this process may use."""
    threads: int = 1
    most_threads: int = 1
    """Threads that a replay may use to match a miner's device class."""
    heldout_batches: int = BATCHES
    patience_s: float = PATIENCE_S
    """How long the orchestrator may be silent before the validator joins anew."""
    reconnect_s: float = 60.0
    """Pause before it tries to."""


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
        self._weight_chain = WeightChain(chain, netuid, hotkey.ss58)
        running_s = time.time() - psutil.Process().create_time()
        self._budget = Budget(options.compute_share, already_s=max(0.0, running_s))
        self._seals: asyncio.Queue[tuple[EpochClose, float] | None] = asyncio.Queue(_MOST_SEALS)
        self._talk: Conversation | None = None
        self._heard = 0.0

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
                links = LinkChain(load_or_create_seed(folder / "links.seed"), info.spec.schedule.epochs)
                await self._chain.open()
                await self._chain.commit_tip(info.spec.id, links.tip)
                weighing = Weighing(info.spec.audit, notebook, self._budget)
                setter = WeightSetter(
                    self._weight_chain,
                    notebook.weights,
                    weighing.weights,
                    info.spec.audit.burn,
                    told=lambda plan: self._tell_weights(plan, weighing),
                )
                # Weights depend on the notebook and the chain: an orchestrator that is gone stops none.
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(setter.run(), name="weights")
                    await self._persist(
                        lambda: self._take_part(info.spec, links, notebook, worker, weighing, setter)
                    )
        finally:
            await asyncio.to_thread(worker.close)

    async def _persist(self, take_part: Callable[[], Awaitable[None]]) -> None:
        """Take part to the end of the run, joining anew whenever the orchestrator was away for too long.

        Raises OrchestratorUnreachable, in a group, when it was away for a day.
        """
        self._heard = time.monotonic()
        while True:
            try:
                await take_part()
            except* OrchestratorUnreachable as gone:
                if time.monotonic() > self._heard + _GONE_S:
                    raise
                log.warning("the orchestrator is away, and weights go on without it: %s", first_error(gone))
            else:
                return
            await asyncio.sleep(self._options.reconnect_s)

    def _tell_weights(self, plan: WeightPlan, weighing: Weighing) -> None:
        weighing.explain()
        if plan.state in (PlanState.ACCEPTED, PlanState.LANDED) and plan.block is not None:
            share = self._budget.share
            self._say(WeightsSet(block=plan.block, weights=dict(plan.scores), compute_share=share))

    def _say(self, report: Report) -> None:
        """Tell the orchestrator, if there is one just now: the chain is what counts."""
        if self._talk is not None:
            self._talk.say(reports=[report])

    async def _take_part(
        self,
        spec: RunSpec,
        links: LinkChain,
        notebook: Notebook,
        worker: Worker,
        weighing: Weighing,
        setter: WeightSetter,
    ) -> None:
        """One membership: from the join to the end of the run and the last weights."""
        self._seals = asyncio.Queue(_MOST_SEALS)
        manifest = parse_manifest(await self._client.manifest(), spec.data.manifest)
        fetcher = Fetcher(self._client, self._objects)
        reader = ShardReader(manifest, fetcher.piece, self._options.data_dir / "cache", CACHE_BYTES)
        samples = Samples(spec, reader)
        evidence = Evidence(spec, self._client, fetcher, samples)
        reply = await self._client.join(self._join_request(links.tip))
        if reply.run != spec.id:
            raise ValueError(
                f"the orchestrator has another run now, {reply.run[:16]}: start the validator again"
            )
        async with self._talking(reply) as talk:
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
            async with asyncio.TaskGroup() as tasks:
                beside = [
                    tasks.create_task(self._listen(talk, audits, snapshots), name="listen"),
                    tasks.create_task(self._tell_status(talk, audits, setter, worker), name="status"),
                ]
                while (sealed := await self._seals.get()) is not None:
                    seal, heard = sealed
                    await audits.take(seal, heard)
                    weighing.explain()
                for task in beside:
                    task.cancel()
            await setter.finish()
            await talk.settled(STORED_S)

    @asynccontextmanager
    async def _talking(self, reply: JoinReply) -> AsyncIterator[Conversation]:
        patience_s = self._options.patience_s
        async with Conversation(
            self._client, reply.cursor, stored=reply.receipts, patience_s=patience_s
        ) as talk:
            self._talk = talk
            try:
                yield talk
            finally:
                self._talk, self._heard = None, time.monotonic()

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

    async def _tell_status(
        self, talk: Conversation, audits: EpochAudits, setter: WeightSetter, worker: Worker
    ) -> None:
        process = psutil.Process()
        while True:
            talk.status = NodeStatus(
                state=f"{audits.doing}; weights: {setter.doing}"[:200],
                seconds={"replay": worker.busy_s, "wait": self._budget.paused_s},
                memory=process.memory_info().rss,
            )
            await asyncio.sleep(STATUS_S)


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error in a group of groups."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
