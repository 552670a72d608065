"""The validator's shell: it joins, listens for seals, audits, files verdicts, scores and sets weights."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from iota.chain import Chain, ChainError
from iota.compute.errors import BadValueError
from iota.compute.precision import device_class
from iota.data.manifest import DataError, parse_manifest
from iota.data.reader import ShardReader
from iota.protocol.client import OrchestratorClient, OrchestratorUnreachable
from iota.protocol.conversation import Conversation
from iota.protocol.events import AuditsClosed, EpochClose, RunEnd, SnapshotReady
from iota.protocol.keys import Hotkey
from iota.protocol.messages import (
    PROTOCOL_VERSION,
    AuditsDone,
    Capabilities,
    Heldout,
    JoinRequest,
    NodeStatus,
    Outcome,
    Reveal,
    Role,
    Verdict,
    WeightsSet,
)
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.records import BaseRecord
from iota.spec import RunSpec
from iota.store import StoreError
from iota.store.transfer import ObjectClient
from validator.audit import Auditor, Result, Task, of_blame
from validator.budget import Budget, Worker
from validator.duties import tasks_for, work_of
from validator.errors import Missing
from validator.evidence import Evidence
from validator.fetch import Fetcher
from validator.heldout import heldout_loss
from validator.links import LinkChain, load_or_create_seed
from validator.notebook import Notebook
from validator.onchain import OnChain
from validator.samples import Samples
from validator.scoring import Score, scores
from validator.sealed import SealBroken, SealedEpoch
from validator.snapshots import Snapshots
from validator.verdicts import signed_verdict

log = logging.getLogger(__name__)

CACHE_BYTES: Final = 1 << 30
STATUS_S: Final = 2.0
STORED_S: Final = 30.0
"""How long reports may take to be acknowledged before the next step is taken anyway."""
BASE_POLL_S: Final = 0.5
LAST_WEIGHTS_S: Final = 300.0
_FILING: Final = 0.9
"""Share of the audit deadline after which what is not done is filed as inconclusive."""
_SNAPSHOT: Final = 1 / 3
"""Share of the audit deadline that a miner has to deliver a snapshot."""
_WEIGH_S: Final = 1.0
_TRANSPORT = (OrchestratorUnreachable, StoreError, DataError, Problem)
"""What may go wrong with a fetch whoever is to blame: an inconclusive audit, named."""


@dataclass(frozen=True)
class ValidatorOptions:
    data_dir: Path
    compute_share: float = 0.10
    threads: int = 1
    most_threads: int = 1
    """Threads that a replay may use to match a miner's device class."""
    heldout_batches: int = 4


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
        self._budget = Budget(options.compute_share)
        self._worker = Worker(self._budget)
        self._seals: asyncio.Queue[EpochClose | None] = asyncio.Queue()
        self._closed: set[int] = set()
        self._auditing: tuple[int, asyncio.Timeout] | None = None
        self._doing = "joining"
        self._heard: dict[int, float] = {}
        self._weighed_at: int | None = None

    async def run(self) -> None:
        """Take part until the run ends, then set weights once more.

        Raises:
            ValueError: what the operator can put right (directory, registration).
            Problem, OrchestratorUnreachable: the orchestrator refuses, or is gone.
        """
        info = await self._client.run()
        folder = self._options.data_dir / info.run[:16]
        try:
            with Notebook(folder, info.run, self._hotkey.ss58) as self._notebook:
                await self._take_part(info.spec, folder)
        finally:
            await asyncio.to_thread(self._worker.close)

    async def _take_part(self, spec: RunSpec, folder: Path) -> None:
        self._spec = spec
        seed = load_or_create_seed(folder / "links.seed")
        self._links = LinkChain(seed, spec.schedule.epochs)
        await self._chain.open()
        await self._chain.commit_tip(spec.id, self._links.tip)
        reply = await self._client.join(self._join_request())
        manifest = parse_manifest(await self._client.manifest(), spec.data.manifest)
        fetcher = Fetcher(self._client, self._objects)
        reader = ShardReader(manifest, fetcher.piece, self._options.data_dir / "cache", CACHE_BYTES)
        self._samples = Samples(spec, reader)
        self._evidence = Evidence(spec, self._client, fetcher, self._samples)
        async with Conversation(self._client, reply.cursor, stored=reply.receipts) as self._talk:
            self._snapshots = Snapshots(
                spec,
                fetcher,
                lambda wanted: self._talk.say(reports=[wanted]),
                self._is_live,
                spec.audit.deadline_s * _SNAPSHOT,
            )
            self._auditor = Auditor(
                spec,
                self._evidence,
                self._snapshots,
                self._worker,
                threads=self._options.threads,
                most_threads=self._options.most_threads,
            )
            async with asyncio.TaskGroup() as tasks:
                helpers = [tasks.create_task(self._tell_status()), tasks.create_task(self._weigh())]
                listener = tasks.create_task(self._listen())
                await self._audit_seals()
                for helper in (*helpers, listener):
                    helper.cancel()
            await self._set_last_weights()
            await self._talk.settled(STORED_S)

    def _join_request(self) -> JoinRequest:
        device = device_class("cpu", self._options.threads)
        memory = psutil.virtual_memory().available
        return JoinRequest(
            role=Role.VALIDATOR,
            versions=(PROTOCOL_VERSION,),
            capabilities=Capabilities(device=device, memory=memory, flops=0.0),
            link=self._links.tip,
        )

    # ---- what is heard -------------------------------------------------------------------------

    async def _listen(self) -> None:
        async for delivered in self._talk.events():
            match delivered.event:
                case EpochClose() as seal:
                    self._heard.setdefault(seal.epoch, time.monotonic())
                    await self._seals.put(seal)
                case SnapshotReady() as ready:
                    self._snapshots.arrived(ready)
                case AuditsClosed() as closed:
                    self._close(closed.epoch)
                case RunEnd():
                    await self._seals.put(None)
                case _:
                    pass

    def _close(self, epoch: int) -> None:
        """The coordinator takes no more verdicts of this epoch: whatever is under way ends."""
        self._closed.add(epoch)
        if self._auditing is not None and self._auditing[0] == epoch:
            self._auditing[1].reschedule(asyncio.get_running_loop().time())

    async def _is_live(self, hotkey: str) -> bool:
        members = (await self._client.status())["members"]
        return any(m["hotkey"] == hotkey and m["live"] for m in members)

    # ---- audits --------------------------------------------------------------------------------

    async def _audit_seals(self) -> None:
        while (seal := await self._seals.get()) is not None:
            if seal.epoch in self._closed:
                continue
            if self._notebook.is_done(seal.epoch):
                self._file_again(seal.epoch)
                continue
            await self._audit_epoch(seal)
            self._doing = "waiting for the next seal"

    def _file_again(self, epoch: int) -> None:
        """A restart: what was decided stands; the orchestrator recognises what it has."""
        verdicts = self._notebook.verdicts(epoch)
        link = self._links.link(epoch)
        self._talk.say(reports=[Reveal(epoch=epoch, link=link), *verdicts, AuditsDone(epoch=epoch)])

    async def _audit_epoch(self, seal: EpochClose) -> None:
        """All of one epoch: draw, audits, held-out loss; ends by the deadline whatever happens."""
        epoch = seal.epoch
        deadline = self._heard[epoch] + self._spec.audit.deadline_s * _FILING
        try:
            async with asyncio.timeout(deadline - time.monotonic()) as limit:
                self._auditing = (epoch, limit)
                self._doing = f"epoch {epoch}: waiting for block {seal.block}"
                block_hash = await self._chain.hash_of(seal.block)
                link = self._links.link(epoch)
                self._talk.say(reports=[Reveal(epoch=epoch, link=link)])
                # The coordinator takes verdicts and requests only from those who revealed.
                await self._talk.settled(STORED_S)
                sealed = await self._evidence.sealed(epoch)
        except TimeoutError:
            log.error("epoch %d: no draw before the deadline, so no audits", epoch)
            return
        except SealBroken as error:
            log.error("epoch %d cannot be audited: %s", epoch, error)
            self._talk.say(reports=[AuditsDone(epoch=epoch)])
            return
        except Problem as problem:
            if problem.type is not ProblemType.NOT_FOUND:
                raise
            log.warning("epoch %d: its audits are closed already", epoch)
            return
        finally:
            self._auditing = None
        self._notebook.keep_work(work_of(sealed))
        await self._audit_miners(sealed, block_hash, link, deadline)
        await self._measure(epoch + 1, deadline)
        await self._talk.settled(STORED_S)
        self._notebook.finish(epoch)
        self._talk.say(reports=[AuditsDone(epoch=epoch)])
        self._snapshots.forget(epoch)
        self._explain()

    async def _audit_miners(
        self, sealed: SealedEpoch, block_hash: str, link: str, deadline: float
    ) -> None:
        # By stage, so that one base at a time is enough.
        miners = sorted(sealed.miners, key=lambda hotkey: (sealed.miners[hotkey].stage, hotkey))
        todo = {hotkey: tasks_for(sealed, block_hash, link, hotkey) for hotkey in miners}
        for hotkey, tasks in todo.items():
            left = [t for t in tasks if self._notebook.verdict(sealed.epoch, hotkey, t.name) is None]
            self._auditor.ask_ahead(sealed, hotkey, left)
        for hotkey, tasks in todo.items():
            try:
                async with asyncio.timeout(deadline - time.monotonic()) as limit:
                    self._auditing = (sealed.epoch, limit)
                    if sealed.epoch in self._closed:
                        limit.reschedule(0)
                    await self._audit_miner(sealed, hotkey, tasks)
            except TimeoutError:
                late = Result(Outcome.INCONCLUSIVE, 0, "", reason="not done before the deadline")
                for task in tasks:
                    self._file(sealed.epoch, hotkey, task, late)
            finally:
                self._auditing = None

    async def _audit_miner(self, sealed: SealedEpoch, hotkey: str, tasks: list[Task]) -> None:
        epoch = sealed.epoch
        name = f"epoch {epoch}: auditing {hotkey}"
        self._doing = name
        seen = await self._auditor.check(sealed, hotkey)
        if seen is not None:
            self._file_extra(epoch, hotkey, seen)
        for task in tasks:
            if (kept := self._notebook.verdict(epoch, hotkey, task.name)) is not None:
                self._talk.say(reports=[kept])
                continue
            self._doing = f"{name}, {task.name}"
            try:
                result = await self._auditor.run(sealed, hotkey, task)
            except _TRANSPORT as error:
                reason = f"evidence cannot be fetched: {error}"
                result = Result(Outcome.INCONCLUSIVE, task.seq, "", reason=reason)
            self._file(epoch, hotkey, task, result)
            while self._evidence.blamed:
                blame = self._evidence.blamed.pop()
                self._file_extra(epoch, blame.hotkey, of_blame(blame))

    def _file(self, epoch: int, hotkey: str, task: Task, result: Result) -> None:
        """Decide, remember, say: a verdict of this name that was kept before stands."""
        verdict = signed_verdict(
            self._spec.id,
            self._hotkey,
            epoch=epoch,
            miner=hotkey,
            audit=task.kind,
            outcome=result.outcome,
            seq=result.seq or task.seq,
            profile=result.profile,
            expected=result.expected,
            found=result.found,
            reason=result.reason,
        )
        kept = self._notebook.keep(task.name, verdict, unproven=result.unproven)
        if kept.outcome is Outcome.PASS:
            log.info("epoch %d: %s passes %s", epoch, hotkey, task.name)
        else:
            log.warning("epoch %d: %s: %s %s: %s", epoch, hotkey, task.name, kept.outcome, kept.reason)
        self._say_verdict(kept)

    def _file_extra(self, epoch: int, hotkey: str, result: Result) -> None:
        """A verdict that no draw asked for: the records themselves show a fault."""
        from iota.protocol.messages import AuditKind

        self._file(epoch, hotkey, Task(AuditKind.OP, f"records:{result.seq}", result.seq), result)

    def _say_verdict(self, verdict: Verdict) -> None:
        if verdict.epoch not in self._closed:
            self._talk.say(reports=[verdict])

    # ---- held-out loss -------------------------------------------------------------------------

    async def _measure(self, epoch: int, deadline: float) -> None:
        """Held-out loss of the base of `epoch`, once it is stored. What cannot be measured is logged."""
        kept = self._notebook.heldout(epoch)
        if kept is not None:
            self._talk.say(reports=[Heldout(epoch=epoch, loss=kept)])
            return
        self._doing = f"held-out loss of the base of epoch {epoch}"
        try:
            async with asyncio.timeout(deadline - time.monotonic()) as limit:
                self._auditing = (epoch - 1, limit)
                bases = await self._stored_bases(epoch)
                loss = await heldout_loss(
                    self._spec,
                    epoch,
                    bases,
                    self._evidence,
                    self._samples,
                    self._worker,
                    self._options.heldout_batches,
                )
        except TimeoutError:
            log.warning("epoch %d: its base was not measured before the deadline", epoch)
            return
        except (Missing, BadValueError, *_TRANSPORT) as error:
            log.warning("epoch %d: its base cannot be measured: %s", epoch, error)
            return
        finally:
            self._auditing = None
        if loss is None:
            log.warning("the data holds out less than one batch: there is no held-out loss")
            return
        self._notebook.keep_heldout(epoch, loss)
        self._talk.say(reports=[Heldout(epoch=epoch, loss=loss)])

    async def _stored_bases(self, epoch: int) -> tuple[BaseRecord, ...]:
        """The records of the base of `epoch`, when every stage's is stored; the caller has a deadline."""
        while True:
            record = await self._client.epoch_record(epoch - 1)
            bases = tuple(base for base in record.bases if base.epoch == epoch)
            if len(bases) == self._spec.layout.stages:
                return bases
            await asyncio.sleep(BASE_POLL_S)

    # ---- scores and weights --------------------------------------------------------------------

    def _scores(self) -> tuple[Score, ...]:
        """Scores after the newest audited epoch; none before the first."""
        now = self._notebook.last_done()
        if now is None:
            return ()
        work = self._notebook.work(now - self._spec.audit.window + 1, now)
        return scores(self._spec.audit, now, work, self._notebook.failed())

    def _explain(self) -> None:
        found, now = self._scores(), self._notebook.last_done()
        if now is not None:
            self._notebook.explain(now, found, self._budget.share)

    async def _weigh(self) -> None:
        """Set weights once a tempo, from the first audited epoch on."""
        while True:
            if self._notebook.last_done() is not None:
                try:
                    tempo = await self._chain.tempo_index()
                    if tempo != self._weighed_at and await self._set_weights(None):
                        self._weighed_at = tempo
                except ChainError as error:
                    log.warning("weights could not be set: %s", error)
            await asyncio.sleep(_WEIGH_S)

    async def _set_last_weights(self) -> None:
        self._doing = "setting the last weights"
        try:
            await self._set_weights(LAST_WEIGHTS_S)
        except ChainError as error:
            log.error("the last weights could not be set: %s", error)

    async def _set_weights(self, patience_s: float | None) -> bool:
        """Set and report weights; True where the chain took them. Raises ChainError."""
        found = self._scores()
        if not found:
            return False
        weights = {score.hotkey: score.weight for score in found}
        burn = self._spec.audit.burn
        if patience_s is None:
            block = await self._chain.set_weights(weights, burn)
        else:
            block = await self._chain.set_last_weights(weights, burn, patience_s)
        if block is None:
            log.warning("no miner has a score: there are no weights to set")
            return False
        log.info("weights set in block %d", block)
        share = self._budget.share
        self._talk.say(reports=[WeightsSet(block=block, weights=weights, compute_share=share)])
        return True

    async def _tell_status(self) -> None:
        process = psutil.Process()
        while True:
            self._talk.status = NodeStatus(
                state=self._doing[:200],
                seconds={"replay": time.process_time(), "wait": self._budget.paused_s},
                memory=process.memory_info().rss,
            )
            await asyncio.sleep(STATUS_S)
