"""One sealed epoch from its draw to its last verdict, within its deadline."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from iota.client.conversation import Conversation
from iota.client.orchestrator import OrchestratorClient, OrchestratorUnreachable, UntrustedAnswer
from iota.compute.errors import BadValueError
from iota.data.manifest import DataError
from iota.data.samples import Samples
from iota.protocol.events import EpochClose
from iota.protocol.messages import AuditKind, AuditsDone, Heldout, Outcome, Reveal
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.records import BaseRecord
from iota.store import StoreError
from validator.audits.audit import Auditor, Result, Task, of_blame
from validator.audits.budget import Worker
from validator.audits.demands import tasks_for, work_of
from validator.audits.errors import Missing
from validator.audits.evidence import Evidence
from validator.audits.filing import Filing
from validator.audits.heldout import heldout_loss
from validator.audits.links import LinkChain
from validator.audits.sealed import SealBroken, SealedEpoch
from validator.audits.snapshots import Snapshots
from validator.notebook import Notebook
from validator.onchain import OnChain

log = logging.getLogger(__name__)

STORED_S: Final = 30.0
"""How long reports may take to be acknowledged before the next step is taken anyway."""
BASE_POLL_S: Final = 0.5
_REASON: Final = 300
"""Characters of an error that a verdict repeats."""
_FILING: Final = 0.9
"""Share of the audit deadline after which what is not done is filed as inconclusive."""
_TRANSPORT = (OrchestratorUnreachable, UntrustedAnswer, StoreError, DataError, Problem)
"""What may go wrong with a fetch, whoever is to blame: an inconclusive audit, named."""


class EpochAudits:
    """Everything that a sealed epoch demands of this validator."""

    def __init__(
        self,
        client: OrchestratorClient,
        talk: Conversation,
        chain: OnChain,
        links: LinkChain,
        notebook: Notebook,
        filing: Filing,
        evidence: Evidence,
        samples: Samples,
        snapshots: Snapshots,
        auditor: Auditor,
        worker: Worker,
        heldout_batches: int,
    ) -> None:
        self._client, self._talk, self._chain, self._links = client, talk, chain, links
        self._notebook, self._filing, self._evidence = notebook, filing, evidence
        self._samples, self._snapshots, self._auditor = samples, snapshots, auditor
        self._worker, self._heldout_batches = worker, heldout_batches
        self._closed: set[int] = set()
        self._auditing: tuple[int, asyncio.Timeout] | None = None
        self.doing = "waiting for the first seal"
        """For people to look at."""

    def close(self, epoch: int) -> None:
        """The coordinator takes no more verdicts of this epoch: whatever is under way ends."""
        self._closed.add(epoch)
        if self._auditing is not None and self._auditing[0] == epoch:
            self._auditing[1].reschedule(asyncio.get_running_loop().time())

    async def take(self, seal: EpochClose, heard: float) -> None:
        """Audit the sealed epoch, or repeat what an earlier process decided of it.

        `heard` is when the seal was heard of (monotonic seconds).
        """
        if seal.epoch in self._closed:
            return
        if self._notebook.is_done(seal.epoch):
            reveal = Reveal(epoch=seal.epoch, link=self._links.link(seal.epoch))
            verdicts = self._notebook.verdicts(seal.epoch)
            self._talk.say(reports=[reveal, *verdicts, AuditsDone(epoch=seal.epoch)])
        else:
            await self._audit(seal, heard + self._evidence.spec.audit.deadline_s * _FILING)
        self.doing = "waiting for the next seal"

    async def _audit(self, seal: EpochClose, deadline: float) -> None:
        """All of one epoch: draw, audits, held-out loss; ends by the deadline whatever happens."""
        epoch = seal.epoch
        try:
            async with asyncio.timeout(deadline - time.monotonic()) as limit:
                self._auditing = (epoch, limit)
                self.doing = f"epoch {epoch}: waiting for block {seal.block}"
                block_hash = await self._chain.hash_of(seal.block)
                link = self._links.link(epoch)
                self._talk.say(reports=[Reveal(epoch=epoch, link=link)])
                # The coordinator takes verdicts and requests only from those who revealed.
                await self._talk.settled(STORED_S)
                sealed = await self._evidence.sealed(epoch)
        except TimeoutError:
            log.error("epoch %d: no draw before the deadline, so no audits", epoch)
            return
        except (SealBroken, UntrustedAnswer) as error:
            log.error("epoch %d cannot be audited: %s", epoch, error)
            await self._file_broken(epoch, error)
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

    async def _file_broken(self, epoch: int, error: Exception) -> None:
        """Nothing of the epoch can be audited: say so of every miner, since every draw needs a verdict."""
        try:
            record = await self._client.epoch_record(epoch)
        except UntrustedAnswer as untrusted:
            log.error("epoch %d: there is no record to name its miners by: %s", epoch, untrusted)
            return
        for miner in record.miners:
            result = Result(Outcome.INCONCLUSIVE, miner.first_receipt, "", reason=str(error)[:_REASON])
            self._filing.file(epoch, miner.hotkey, Task(AuditKind.OP, "seal", miner.first_receipt), result)
        await self._talk.settled(STORED_S)
        self._talk.say(reports=[AuditsDone(epoch=epoch)])

    async def _audit_miners(self, sealed: SealedEpoch, block_hash: str, link: str, deadline: float) -> None:
        # By stage, so that one base at a time is enough.
        miners = sorted(sealed.miners, key=lambda hotkey: (sealed.miners[hotkey].stage, hotkey))
        todo = {hotkey: tasks_for(sealed, block_hash, link, hotkey) for hotkey in miners}
        for hotkey, tasks in todo.items():
            left = [task for task in tasks if self._filing.kept(sealed.epoch, hotkey, task) is None]
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
                    self._filing.file(sealed.epoch, hotkey, task, late)
            finally:
                self._auditing = None

    async def _audit_miner(self, sealed: SealedEpoch, hotkey: str, tasks: list[Task]) -> None:
        epoch = sealed.epoch
        name = f"epoch {epoch}: auditing {hotkey}"
        self.doing = name
        try:
            seen = await self._auditor.check(sealed, hotkey)
        except _TRANSPORT as error:
            log.warning("epoch %d: the receipts of %s were not looked through: %s", epoch, hotkey, error)
        else:
            if seen is not None:
                self._filing.file_undrawn(epoch, hotkey, seen)
        for task in tasks:
            if (kept := self._filing.kept(epoch, hotkey, task)) is not None:
                self._talk.say(reports=[kept])
                continue
            self.doing = f"{name}, {task.name}"
            try:
                result = await self._auditor.run(sealed, hotkey, task)
            except _TRANSPORT as error:
                reason = f"evidence cannot be fetched: {error}"
                result = Result(Outcome.INCONCLUSIVE, task.seq, "", reason=reason)
            self._filing.file(epoch, hotkey, task, result)
            while self._evidence.blamed:
                blame = self._evidence.blamed.pop()
                self._filing.file_undrawn(epoch, blame.hotkey, of_blame(blame))

    # ---- held-out loss -------------------------------------------------------------------------

    async def _measure(self, epoch: int, deadline: float) -> None:
        """Held-out loss of the base of `epoch`, once it is stored. What cannot be measured is logged."""
        kept = self._notebook.heldout(epoch)
        if kept is not None:
            self._talk.say(reports=[Heldout(epoch=epoch, loss=kept)])
            return
        self.doing = f"held-out loss of the base of epoch {epoch}"
        try:
            async with asyncio.timeout(deadline - time.monotonic()) as limit:
                self._auditing = (epoch - 1, limit)
                bases = await self._stored_bases(epoch)
                loss = await heldout_loss(
                    self._evidence.spec,
                    epoch,
                    bases,
                    self._evidence,
                    self._samples,
                    self._worker,
                    self._heldout_batches,
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
            if len(bases) == self._evidence.spec.layout.stages:
                return bases
            await asyncio.sleep(BASE_POLL_S)
