"""The shell of one membership: gives facts to the validator's core and performs its effects."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from iota.chain import ChainError
from iota.client.conversation import Conversation
from iota.client.orchestrator import UntrustedAnswer
from iota.protocol.events import Accusation, AuditsClosed, EpochClose, EvidenceMissed, EvidenceReady, RunEnd
from iota.protocol.messages import Outcome
from iota.protocol.seals import SignedSeal
from validator.audits.job_runner import JobRunner, is_condition
from validator.audits.verdicts import VerdictSigner, verify_verdict
from validator.core import effects
from validator.core.core import ValidatorCore
from validator.core.facts import Accused, Done, Fact, Failed, Tick
from validator.database import Database
from validator.progress_line import ProgressLines

log = logging.getLogger(__name__)

_MAX_FACTS: Final = 4096
"""When so many facts wait, the conversation is read no further."""


@dataclass
class Membership:
    """One membership of a run, from the join to the run's end.

    Args:
        explain: writes `scores.json`; called after each epoch.
        lines: counts verdicts for the log.
    """

    core: ValidatorCore
    conversation: Conversation
    jobs: JobRunner
    database: Database
    sign: VerdictSigner
    explain: Callable[[], None]
    lines: ProgressLines
    _facts: asyncio.Queue[Fact] = field(default_factory=lambda: asyncio.Queue(_MAX_FACTS))
    _job: asyncio.Task[None] | None = None
    _ended: bool = False
    _broken: Exception | None = None
    """An error after which the accelerator computes nothing more in this process."""

    async def run(self) -> None:
        """Validate until the run has ended.

        Raises, in a group:
            torch.AcceleratorError: the verdict of the audit that met it is filed; a new process goes on.
            Problem, UntrustedAnswer, OrchestratorUnreachable: the conversation failed.
        """
        async with asyncio.TaskGroup() as tasks:
            listener = tasks.create_task(self._listen(), name="listen")
            while not self._ended:
                fact = await self._next_fact()
                for effect in self.core.take(fact, time.monotonic()):
                    self._perform(effect, tasks)
            listener.cancel()

    async def _listen(self) -> None:
        async for delivered in self.conversation.events():
            event = delivered.event
            if isinstance(event, EpochClose):
                news = self.conversation.is_news(delivered)
                if await self._is_sealed(event, delivered.signature):
                    await self._facts.put(event)
                    await self._say_if_late(event, news=news)
            elif isinstance(event, Accusation):
                signed = verify_verdict(self.sign.run, event.verdict, event.validator)
                await self._facts.put(Accused(event, signed))
            elif isinstance(event, EvidenceReady | EvidenceMissed | AuditsClosed | RunEnd):
                await self._facts.put(event)

    async def _is_sealed(self, seal: EpochClose, signature: str | None) -> bool:
        """Whether the orchestrator signed this seal, and no other of its epoch; if not, the log names it."""
        try:
            if signature is None:
                raise UntrustedAnswer(f"the seal of epoch {seal.epoch} has no signature")
            signed = SignedSeal(seal=seal, signature=signature)
            if not await asyncio.to_thread(self.jobs.seals.take, signed):
                raise UntrustedAnswer(
                    f"the orchestrator has signed another seal of epoch {seal.epoch} before"
                )
        except UntrustedAnswer as error:
            log.error("epoch %d is not audited, and no link is revealed for it: %s", seal.epoch, error)
            return False
        return True

    async def _say_if_late(self, seal: EpochClose, *, news: bool) -> None:
        """Log a seal that came after its block to a node that was listening: who sealed may have known it."""
        try:
            if news and await self.jobs.chain.is_final(seal.block):
                log.warning(
                    "epoch %d: block %d, from which its audits are drawn, was final before the seal came",
                    seal.epoch, seal.block,
                )  # fmt: skip
        except ChainError as error:
            log.warning(
                "epoch %d: whether its seal came before its block is not known: %s", seal.epoch, error
            )

    async def _next_fact(self) -> Fact:
        wake_at = self.core.wake_at
        try:
            async with asyncio.timeout(None if wake_at is None else max(0.0, wake_at - time.monotonic())):
                return await self._facts.get()
        except TimeoutError:
            return Tick()

    def _perform(self, effect: effects.Effect, tasks: asyncio.TaskGroup) -> None:
        match effect:
            case effects.Start():
                if self._broken is not None:
                    raise self._broken
                self._job = tasks.create_task(self._run_job(effect), name=type(effect.job).__name__)
            case effects.Stop():
                assert self._job is not None
                self._job.cancel()
            case effects.Say():
                self.conversation.send(reports=[effect.report])
            case effects.FileVerdict():
                self._file(effect, tasks)
            case effects.RepeatVerdicts():
                self.conversation.send(reports=self.database.verdicts(effect.epoch))
            case effects.KeepWork():
                self.database.scores.keep_work(effect.work)
            case effects.KeepDraw():
                self.database.scores.keep_draw(effect.epoch, effect.block_hash)
            case effects.KeepPool():
                self.database.scores.keep_pool(effect.epoch, effect.pool)
            case effects.Measured():
                log.info("epoch %d: held-out loss of its base %s", effect.epoch, effect.found)
            case effects.KeepAudited():
                self.database.scores.finish(effect.epoch)
                log.info("%s", self.lines.audited(effect.epoch))
            case effects.Explain():
                self.explain()
            case effects.Log():
                log.log(logging.ERROR if effect.error else logging.WARNING, "%s", effect.text)
            case effects.InternalError():
                self._internal_error(effect)
            case effects.End():
                self._ended = True

    async def _run_job(self, start: effects.Start) -> None:
        """Give the core the job's answer or its error; a condition of the machine ends the membership."""
        (outcome,) = await asyncio.gather(self.jobs.run(start.job), return_exceptions=True)
        if not isinstance(outcome, BaseException):
            await self._facts.put(Done(start.number, outcome))
        elif isinstance(outcome, Exception) and not is_condition(outcome):
            await self._facts.put(Failed(start.number, outcome))
        else:
            raise outcome.with_traceback(None)  # its frames would keep the memory of a replay

    def _file(self, effect: effects.FileVerdict, tasks: asyncio.TaskGroup) -> None:
        """Keep the verdict, then report it. A verdict kept before under the same name is reported instead."""
        epoch, miner, task = effect.epoch, effect.miner, effect.task
        kept = self.database.keep(task.name, self.sign(effect))
        if kept.outcome is Outcome.PASS:
            log.debug("epoch %d: %s passes %s", epoch, miner, task.name)
        else:
            log.warning("epoch %d: %s: %s %s: %s", epoch, miner, task.name, kept.outcome, kept.reason)
        self.lines.filed(kept)
        self.conversation.send(reports=[kept])
        if (writing := self.jobs.bundles.filed(effect, kept)) is not None:
            tasks.create_task(self._write_bundle(effect, writing), name="bundle")

    async def _write_bundle(self, filed: effects.FileVerdict, writing: Coroutine[Any, Any, None]) -> None:
        """An error that the writing does not handle costs the bundle; a condition ends the membership."""
        error: BaseException | None
        (error,) = await asyncio.gather(writing, return_exceptions=True)
        if isinstance(error, Exception) and not is_condition(error):
            what = f"the file of {filed.task.name} of {filed.miner}"
            self._internal_error(effects.InternalError(filed.epoch, what, error))
        elif error is not None:
            raise error

    def _internal_error(self, effect: effects.InternalError) -> None:
        self.database.keep_internal_error(effect.epoch, effect.what)
        if isinstance(effect.error, torch.AcceleratorError):
            self._broken = effect.error
        text = "epoch %d: %s: an error of this program, which its maintainers should see"
        log.error(text, effect.epoch, effect.what, exc_info=effect.error)
