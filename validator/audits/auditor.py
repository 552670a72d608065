"""Performs the jobs of one audit: fetches evidence, loads states, replays ops and compares them."""

from __future__ import annotations

from iota.compute.state import StageState
from validator.audits.budget import Worker
from validator.audits.evidence import Evidence
from validator.audits.merge_replay import MergeReplay
from validator.audits.replay import Replay, ReplayOptions
from validator.core import jobs
from validator.core.receipt_checks import check_carried, check_committed
from validator.core.results import Profile


class Auditor:
    """Performs one job at a time. A load job starts the replay that the jobs after it use."""

    def __init__(self, evidence: Evidence, worker: Worker, options: ReplayOptions) -> None:
        self._evidence, self._worker, self._options = evidence, worker, options
        self._merges = MergeReplay(evidence.spec, evidence.objects, worker)
        self._replay: Replay | None = None

    async def run(self, job: jobs.AuditJob) -> object:
        """The answer of a job. Raises EvidenceMissing, MinerFault, Undelivered, or an error of transport."""
        run = self._worker.run
        if isinstance(job, jobs.HashBase | jobs.LoadBase | jobs.ReplayMerge | jobs.RemakeBase) or (
            isinstance(job, jobs.LoadSnapshot) and not job.on_top
        ):
            self.unload()
        match job:
            case jobs.FetchBase():
                await self._evidence.base(job.base)
                return None
            case jobs.HashBase():
                base = await self._evidence.base(job.base)
                return await run(lambda: base.weights_digest)
            case jobs.FetchFrame():
                return await self._evidence.frame(job.header)
            case jobs.FetchAnnounced():
                return await self._evidence.announced(job.notice)
            case jobs.FetchTokens():
                return await self._evidence.tokens(job.receipt)
            case jobs.LoadBase():
                state = await self._base_state(job)
                return await self._load(state, job.base.stage, job.version, job.device)
            case jobs.LoadSnapshot():
                return await self._load_snapshot(job)
            case jobs.ReplayMerge():
                return await self._merges.merge(job)
            case jobs.RemakeBase():
                return await self._merges.next_base(job)
        replay = self._replay
        assert replay is not None
        match job:
            case jobs.ReplayOp(receipt, forward, version, inputs):
                return await run(lambda: replay.op(receipt, forward, version, inputs))
            case jobs.ReplayWord(word, version, inputs):
                return await run(lambda: replay.is_finite(word, version, inputs))
            case jobs.CheckSent(miner, receipt):
                payload = await self._evidence.sent_payload(miner, receipt)
                return None if payload is None else await run(lambda: replay.sent(receipt, payload))
            case jobs.ReplayStep(receipt, count, rate):
                return await run(lambda: replay.step(receipt, count, rate))
            case jobs.HashDelta():
                base = await self._evidence.base(job.base)
                return await run(lambda: replay.delta_digests(base))

    def unload(self) -> None:
        """Free the replay, since it and another state might not fit in memory together."""
        self._replay = None

    async def _load(self, state: StageState, stage: int, version: int, device: str) -> Profile:
        spec, options = self._evidence.spec, self._options
        replay = await self._worker.run(lambda: Replay(spec, stage, device, options))
        await self._worker.run(lambda: replay.load(state, version))
        self._replay = replay
        return replay.profile

    async def _base_state(self, job: jobs.LoadBase) -> StageState:
        base = await self._evidence.base(job.base)
        if job.carried is None or job.last is None:
            return base
        carried = await self._evidence.snapshot(job.carried)
        digest = await self._worker.run(lambda: carried.moments_digest)
        # Zero moments are right too: a replica that lost its state started from the base alone.
        zero = await self._worker.run(lambda: self._evidence.zero_moments_digest(job.base.stage))
        check_carried(job.carried.miner, job.last, digest, zero)
        return StageState(base.weights, carried.moments)

    async def _load_snapshot(self, job: jobs.LoadSnapshot) -> Profile:
        given = job.snapshot
        state = await self._evidence.snapshot(given)

        def check() -> None:
            moments = state.moments_digest if job.moments else None
            check_committed(given.miner, job.step, state.weights_digest, moments)

        await self._worker.run(check)
        if not job.on_top:
            wanted = state if job.moments else StageState(state.weights)
            return await self._load(wanted, given.stage, given.version, job.device)
        replay = self._replay
        assert replay is not None
        await self._worker.run(lambda: replay.adopt(state, given.version))
        return replay.profile
