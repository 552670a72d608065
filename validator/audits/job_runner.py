"""Performs the jobs of the validator's core."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from iota.chain import ChainError
from iota.client.evidence_files import SealBook
from iota.client.orchestrator import OrchestratorClient, OrchestratorUnreachable, UntrustedAnswer
from iota.console.classification import passing
from iota.data.manifest import DataError
from iota.protocol.events import EpochClose
from iota.protocol.problems import Problem, ProblemType
from iota.store import StoreError
from validator.audits.auditor import Auditor
from validator.audits.evidence import Evidence
from validator.audits.public_verdicts import VerdictReader
from validator.bundles.keeper import BundleKeeper
from validator.chain import SubnetChain
from validator.core import jobs
from validator.core.facts import RecordBroken, RecordGone, TransportFailed
from validator.core.flags import find_flags
from validator.core.results import EvidenceMissing
from validator.core.sealed import SealBroken, SealedEpoch

log = logging.getLogger(__name__)

_TRANSPORT: Final = (OrchestratorUnreachable, UntrustedAnswer, StoreError, DataError, Problem, ChainError)
"""Errors of a fetch that prove nothing against a miner."""


def is_condition(error: Exception) -> bool:
    """Whether a job's error is of this machine or of a server, so that the same job may succeed later.

    Audits are then neither decided nor filed: the node waits (docs/conditions.md) and repeats them.
    """
    if isinstance(error, (OSError, MemoryError, RuntimeError)):
        return passing(error) is not None
    return isinstance(error, _TRANSPORT)


@dataclass
class JobRunner:
    """Performs one job at a time. `settle` waits until the orchestrator has stored every report so far."""

    client: OrchestratorClient
    chain: SubnetChain
    evidence: Evidence
    auditor: Auditor
    seals: SealBook
    verdicts: VerdictReader
    bundles: BundleKeeper
    settle: Callable[[], Awaitable[object]]

    async def run(self, job: jobs.Job) -> object:
        """The answer of a job. It has no deadline; the core cancels jobs that take too long.

        Raises:
            RecordBroken, RecordGone, TransportFailed, EvidenceMissing, MinerFault, Undelivered: facts for the
                core.
            Problem, OrchestratorUnreachable: an epoch's record cannot be asked for; the membership ends.
            Exception: a fault of this program, which the core makes the result of one audit, unless it
                `is_condition`.
        """
        match job:
            case jobs.AwaitBlock():
                block_hash = await self.chain.hash_of(job.block)
                self.bundles.drawn(job.block, block_hash)
                return block_hash
            case jobs.Settle():
                self.auditor.unload()
                await self.bundles.settle()
                return await self.settle()
            case jobs.FetchRecord():
                return await self._fetch_record(job.seal)
            case jobs.FindFlags():
                return await asyncio.to_thread(find_flags, job.sealed, job.past)
        self.bundles.did(job)
        try:
            match job:
                case jobs.FetchPast():
                    return await self._fetch_past(job.epoch)
                case jobs.FetchVerdicts():
                    return await self.verdicts.read(job.epoch)
                case _:
                    return await self.auditor.run(job)
        except _TRANSPORT as error:
            raise TransportFailed(str(error)) from error

    async def _fetch_record(self, seal: EpochClose) -> SealedEpoch:
        miners = None
        try:
            published = await self.client.seal(seal.epoch)
            if not await asyncio.to_thread(self.seals.take, published):
                raise SealBroken(
                    f"the orchestrator publishes another seal of epoch {seal.epoch} than it sent"
                )
            record = await self.evidence.record(seal)
            miners = record.miners
            sealed = await self.evidence.sealed(record)
            self.bundles.began(sealed, published)
            return sealed
        except (SealBroken, UntrustedAnswer) as error:
            raise RecordBroken(str(error), miners) from error
        except Problem as problem:
            if problem.type is not ProblemType.NOT_FOUND:
                raise
            raise RecordGone from problem

    async def _fetch_past(self, epoch: int) -> tuple[EpochClose, SealedEpoch]:
        try:
            signed = await self.client.seal(epoch)
            if not await asyncio.to_thread(self.seals.take, signed):
                raise SealBroken(f"the orchestrator has signed another seal of epoch {epoch} before")
            return signed.seal, await self.evidence.sealed(await self.evidence.record(signed.seal))
        except SealBroken as error:
            raise EvidenceMissing(str(error)) from error
