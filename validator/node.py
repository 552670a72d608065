"""The validator process: commits its links, takes part in the run, and sets weights throughout."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
import torch

from iota.chain import Chain
from iota.client.conversation import Conversation
from iota.client.evidence_files import SealBook
from iota.client.orchestrator import RETRY_FOR_S, OrchestratorClient, OtherRun, new_session
from iota.compute.compiled import is_compiled
from iota.compute.determinism import device_class
from iota.compute.devices import card_bytes, check_dtypes
from iota.console.counts import counted
from iota.console.lasting import lasting
from iota.console.watch import Watch
from iota.data.manifest import parse_manifest
from iota.data.reader import ShardReader
from iota.data.samples import Samples
from iota.identity.keys import Hotkey
from iota.planning import Machine
from iota.planning.replays import unreplayable
from iota.protocol.messages import (
    PROTOCOL_VERSION,
    Capabilities,
    JoinRequest,
    NodeStatus,
    Role,
    WeightsSet,
)
from iota.spec import RunSpec
from iota.store.transfer import ObjectClient
from validator.audits.auditor import Auditor
from validator.audits.budget import Budget, Worker
from validator.audits.evidence import Evidence
from validator.audits.job_runner import JobRunner
from validator.audits.patient_objects import PatientObjects
from validator.audits.public_verdicts import VerdictReader
from validator.audits.replay import ReplayOptions
from validator.audits.verdicts import VerdictSigner
from validator.bundles.keeper import BundleKeeper
from validator.chain import SubnetChain
from validator.core.core import ValidatorCore
from validator.core.links import LinkChain
from validator.database import Database
from validator.link_seed import load_or_create_seed
from validator.membership import Membership
from validator.progress_line import ProgressLines
from validator.weights.plan import PlanState, WeightPlan
from validator.weights.scoreboard import Scoreboard
from validator.weights.setter import WeightSetter

log = logging.getLogger(__name__)

CACHE_BYTES: Final = 1 << 30
"""Disk for cached blocks of the data shards (1 GiB)."""
STATUS_S: Final = 2.0
STORED_S: Final = 30.0
"""How long to wait for the orchestrator to acknowledge reports before going on anyway."""
_NAMED: Final = 8
"""Miners that a line on weights names."""


@dataclass(frozen=True)
class ValidatorOptions:
    """Settings of one validator process."""

    data_dir: Path
    compute_share: float = 0.10
    """Largest share of the machine's compute that this process may use."""
    replay: ReplayOptions = field(default_factory=ReplayOptions)
    retry_for_s: float = RETRY_FOR_S
    """How long the orchestrator may be silent before the validator joins again."""


@dataclass(frozen=True)
class _Parts:
    """Objects of the process that every membership uses."""

    spec: RunSpec
    links: LinkChain
    database: Database
    worker: Worker
    scoreboard: Scoreboard
    setter: WeightSetter


class ValidatorNode:
    """One validator, from its commitment on the chain to its last weights."""

    def __init__(
        self,
        options: ValidatorOptions,
        hotkey: Hotkey,
        client: OrchestratorClient,
        objects: ObjectClient,
        chain: Chain,
        netuid: int,
        watch: Watch | None = None,
    ) -> None:
        """`watch` says what the node waits for; the client should have the same."""
        self._watch, self._session = watch or Watch(), new_session()
        self._options, self._hotkey = options, hotkey
        self._client, self._objects = client, objects
        self._chain = SubnetChain(chain, netuid, hotkey.ss58)
        running_s = time.time() - psutil.Process().create_time()
        self._card = card_bytes(options.replay.device)
        self._budget = Budget(
            options.compute_share, already_s=max(0.0, running_s), accelerator=self._card is not None
        )
        self._conversation: Conversation | None = None
        """Open while this validator is a member; weights are reported in it."""
        self._told_plan = -1
        """Number of the last plan that the log told of."""

    async def run(self) -> None:
        """Take part until the run ends, then set weights once more.

        Raises:
            ValueError: the operator can fix it (directory, subnet).
            ConditionStands: something that passes by itself did not until its end.
        """
        await self._watch.persevere(self._validate)

    async def _validate(self) -> None:
        """One run of the orchestrator's. Raises what `run` outlasts while no weights could be set yet."""
        info = await self._client.run()
        spec, folder = info.spec, self._options.data_dir / info.run[:16]
        self._check(spec)
        worker = Worker(self._budget)
        try:
            with Database(folder, info.run, self._hotkey.ss58) as database:
                links = LinkChain(load_or_create_seed(folder / "links.seed"), spec.schedule.epochs)
                await self._chain.info()
                async with lasting("looking for this validator's links on the chain, or committing them"):
                    await self._chain.commit_tip(spec.id, links.tip)
                self._watch.passed()
                scoreboard = Scoreboard(spec, self._hotkey.ss58, links, database, self._budget, folder)
                setter = WeightSetter(
                    self._chain,
                    database.weights,
                    scoreboard.weights,
                    spec.audit.burn,
                    on_change=lambda plan: self._report_weights(plan, scoreboard),
                )
                parts = _Parts(spec, links, database, worker, scoreboard, setter)
                # Weights need only the database and the chain, so they are set without the orchestrator too.
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(setter.run(), name="weights")
                    await self._watch.persevere(lambda: self._take_part(parts))
        finally:
            await asyncio.to_thread(worker.close)

    def _check(self, spec: RunSpec) -> None:
        """Raises ValueError if this machine can never replay a stage of the run."""
        device = torch.device(self._options.replay.device)
        check_dtypes(spec, device)
        machine = Machine.whole(self._options.data_dir, self._card)
        if short := unreplayable(spec, machine, compiled=is_compiled(device)):
            raise ValueError("; ".join(short))

    async def _take_part(self, parts: _Parts) -> None:
        """One membership: from the join to the end of the run and the last weights."""
        spec, options = parts.spec, self._options
        reply = await self._client.join(self._join_request(parts.links.tip))
        if reply.run != spec.id:
            raise OtherRun(f"it is {reply.run[:16]}, and this process has part in {spec.id[:16]}")
        log.info("joined run %s as a validator: an epoch's audits begin with its seal", reply.run[:12])
        manifest = parse_manifest(await self._client.manifest(), spec.data.manifest)
        objects = PatientObjects(self._client, self._objects)
        samples = Samples(
            spec, ShardReader(manifest, objects.get_range, options.data_dir / "cache", CACHE_BYTES)
        )
        evidence = Evidence(spec, self._client, objects, samples)
        core = ValidatorCore(spec, self._hotkey.ss58, parts.links, parts.database.history(spec.window_epochs))
        sign = VerdictSigner(spec.id, self._hotkey)
        auditor = Auditor(evidence, parts.worker, options.replay)
        async with Conversation(
            self._client,
            reply.cursor,
            session=reply.session,
            stored=reply.receipts,
            retry_for_s=options.retry_for_s,
            watch=self._watch,
        ) as conversation:
            folder = options.data_dir / spec.id[:16]
            jobs = JobRunner(
                self._client,
                self._chain,
                evidence,
                auditor,
                SealBook(folder, spec.id, reply.orchestrator),
                VerdictReader(spec.id, self._hotkey.ss58, self._client, self._chain),
                BundleKeeper(
                    folder,
                    reply.orchestrator,
                    self._hotkey.ss58,
                    parts.links.link,
                    (self._client, objects, samples),
                ),
                lambda: conversation.flush(STORED_S),
            )
            lines = ProgressLines(time.monotonic(), self._budget.allowed)
            membership = Membership(
                core, conversation, jobs, parts.database, sign, parts.scoreboard.explain, lines
            )
            self._conversation = conversation
            try:
                async with asyncio.TaskGroup() as tasks:
                    status = tasks.create_task(
                        self._report_status(conversation, core, parts, lines), name="status"
                    )
                    await membership.run()
                    status.cancel()
                log.info("the run has ended: the last weights are set now")
                await parts.setter.finish()
                await conversation.flush(STORED_S)
            finally:
                self._conversation = None
                auditor.unload()

    def _join_request(self, tip: str) -> JoinRequest:
        replay = self._options.replay
        return JoinRequest(
            role=Role.VALIDATOR,
            versions=(PROTOCOL_VERSION,),
            capabilities=Capabilities(
                device=device_class(replay.device, replay.threads),
                memory=psutil.virtual_memory().available,
                flops=0.0,
            ),
            link=tip,
            session=self._session,
        )

    # ---- reports -------------------------------------------------------------------------------

    def _report_weights(self, plan: WeightPlan, scoreboard: Scoreboard) -> None:
        """Record a plan's new state, and report weights that the chain took while a conversation is open."""
        scoreboard.explain()
        taken = plan.state in (PlanState.ACCEPTED, PlanState.LANDED)
        if taken and plan.block is not None and self._conversation is not None:
            share = self._budget.share
            report = WeightsSet(block=plan.block, weights=dict(plan.scores), compute_share=share)
            self._conversation.send(reports=[report])
        if taken and plan.number != self._told_plan:
            self._told_plan = plan.number
            heaviest = sorted(plan.scores.items(), key=lambda item: -item[1])[:_NAMED]
            named = ", ".join(f"{hotkey[:8]} {weight:.3f}" for hotkey, weight in heaviest)
            miners = counted(len(plan.scores), "miner")
            log.info("weights of %s are set in block %d: %s", miners, plan.block, named)

    async def _report_status(
        self, conversation: Conversation, core: ValidatorCore, parts: _Parts, lines: ProgressLines
    ) -> None:
        process = psutil.Process()
        while True:
            state = f"{core.activity}; weights: {parts.setter.activity}"
            if errors := parts.database.internal_errors():
                state = f"{counted(errors, 'audit')} ended by an internal error; {state}"
            conversation.status = NodeStatus(
                state=state[:200],
                seconds={"replay": parts.worker.busy_s, "wait": self._budget.paused_s},
                memory=process.memory_info().rss,
            )
            share = self._budget.share
            if text := lines.look(time.monotonic(), core.activity, parts.setter.activity, share):
                log.info("%s", text)
            await asyncio.sleep(STATUS_S)
