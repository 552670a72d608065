"""Performs the jobs of one audit: fetches evidence, loads states, replays ops and compares them."""

from __future__ import annotations

import torch

from iota.compute.commitment import commitment
from iota.compute.devices import device_of
from iota.compute.state import StageState
from iota.outer.partition import PartError
from iota.protocol.receipts import Receipt
from validator.audits.budget import Worker
from validator.audits.encode_again import encode_again
from validator.audits.evidence import Evidence
from validator.audits.merge_replay import MergeReplay
from validator.audits.replay import OwnFingerprint, Replay, ReplayOptions
from validator.core import jobs
from validator.core.receipt_checks import check_committed, zero_moments_root
from validator.core.results import MinerFault, Profile, Undelivered

_Afresh = jobs.LoadBase | jobs.LoadSnapshot | jobs.ReplayMerge | jobs.RemakeBase
"""Jobs that free the replay before them."""
_Fetched = jobs.FetchBase | jobs.FetchFrame | jobs.FetchAnnounced | jobs.FetchTokens | jobs.FetchSent
_Replayed = jobs.ReplayOp | jobs.ReplayWord | jobs.ReplayStep | jobs.CompareRoots


class Auditor:
    """Performs one job at a time. A load job starts the replay that the jobs after it use."""

    def __init__(self, evidence: Evidence, worker: Worker, options: ReplayOptions) -> None:
        self._evidence, self._worker, self._options = evidence, worker, options
        self._merges = MergeReplay(evidence.spec, evidence.objects, worker)
        self._own = OwnFingerprint()
        self._replay: Replay | None = None
        self._start: StageState | None = None
        """The weights that the replay began with, where its end is compared by more than roots."""

    async def run(self, job: jobs.AuditJob) -> object:
        """The answer of a job. Raises EvidenceMissing, MinerFault, Undelivered, or an error of transport."""
        match job:
            case jobs.LoadBase() | jobs.LoadSnapshot() | jobs.ReplayMerge() | jobs.RemakeBase():
                self.unload()
                return await self._afresh(job)
            case jobs.ReplayOp() | jobs.ReplayWord() | jobs.ReplayStep() | jobs.CompareRoots():
                return await self._replayed(job)
            case jobs.CompareState():
                return await self._compare_state(job)
            case jobs.HashDelta():
                return await self._hash_delta(job)
            case _:
                return await self._fetched(job)

    def unload(self) -> None:
        """Free the replay, since it and another state might not fit in memory together.

        Memory that torch reserved on an accelerator is given back, to a miner on the same one for instance.
        """
        self._replay = self._start = None
        device_of(torch.device(self._options.device)).release()

    async def _afresh(self, job: _Afresh) -> object:
        match job:
            case jobs.LoadBase():
                state = await self._base_state(job)
                return await self._load(state, job.base.stage, job.version, job.shown)
            case jobs.LoadSnapshot():
                state = await self._committed(job.snapshot, job.commit, whole=job.whole)
                given = job.snapshot
                wanted = state if job.whole else StageState(state.weights)
                return await self._load(wanted, given.stage, given.version, job.shown)
            case jobs.ReplayMerge():
                return await self._merges.merge(job)
            case jobs.RemakeBase():
                return await self._merges.next_base(job)

    async def _fetched(self, job: _Fetched) -> object:
        match job:
            case jobs.FetchBase():
                await self._evidence.start(job.base)
                return None
            case jobs.FetchFrame():
                return await self._evidence.frame(job.header, job.kept)
            case jobs.FetchAnnounced():
                return await self._evidence.announced(job.notice, job.kept)
            case jobs.FetchTokens():
                return await self._evidence.tokens(job.receipt)
            case jobs.FetchSent():
                return await self._evidence.sent_payload(job.miner, job.receipt, job.kept)

    async def _replayed(self, job: _Replayed) -> object:
        replay = self._loaded
        match job:
            case jobs.ReplayOp():
                return await self._worker.run(lambda: replay.op(job))
            case jobs.ReplayWord(word, version, inputs):
                return await self._worker.run(lambda: replay.is_finite(word, version, inputs))
            case jobs.ReplayStep(receipt, count, rate):
                return await self._worker.run(lambda: replay.step(receipt, count, rate))
            case jobs.CompareRoots():
                return await self._worker.run(lambda: replay.compare_roots(job.commit))

    # ---- states --------------------------------------------------------------------------------

    @property
    def _loaded(self) -> Replay:
        assert self._replay is not None
        return self._replay

    @property
    def _part_elements(self) -> int:
        return self._evidence.spec.outer.part_elements

    async def _load(self, state: StageState, stage: int, version: int, shown: jobs.Shown) -> Profile:
        spec, options = self._evidence.spec, self._options
        replay = await self._worker.run(lambda: Replay(spec, stage, shown, options, self._own))
        await self._worker.run(lambda: replay.load(state, version))
        self._replay = replay
        self._start = None if replay.profile.exact else StageState(state.weights)
        return replay.profile

    async def _base_state(self, job: jobs.LoadBase) -> StageState:
        start, carried = await self._evidence.start(job.base), job.carried
        if carried is None:
            return start
        assert carried.commit.commitment is not None
        if carried.commit.commitment.moments == zero_moments_root(self._evidence.spec, job.base.stage):
            return start
        state = await self._committed(carried.snapshot, carried.commit, whole=True)
        return StageState(start.weights, state.moments)

    async def _committed(self, given: jobs.Snapshot, commit: Receipt, *, whole: bool) -> StageState:
        """A state that the miner delivered. Raises MinerFault if it is not what it committed to."""
        state = await self._evidence.snapshot(given)

        def check() -> None:
            shown = state if whole else StageState(state.weights)
            check_committed(given.miner, commit, commitment(shown, self._part_elements), whole=whole)

        await self._worker.run(check)
        return state

    async def _compare_state(self, job: jobs.CompareState) -> object:
        try:
            theirs = await self._committed(job.snapshot, job.commit, whole=True)
        except MinerFault as fault:  # who compares to the bit needs no such state, and finds the work right
            raise Undelivered(fault.reason) from fault
        replay, start = self._loaded, self._start
        assert start is not None
        return await self._worker.run(lambda: replay.compare_state(job.commit, start, theirs))

    async def _hash_delta(self, job: jobs.HashDelta) -> jobs.Encoded:
        if job.snapshot is None:
            final = await self._worker.run(self._loaded.weights)
        else:
            self.unload()
            final = (await self._committed(job.snapshot, job.commit, whole=False)).weights
        start, outer = await self._evidence.start(job.base), self._evidence.spec.outer
        held = b"" if job.feedback is None else await self._evidence.feedback(job.feedback)
        try:
            return await self._worker.run(lambda: encode_again(outer, start.weights, final, held))
        except PartError as error:
            reason = f"its pseudo-gradient with its error feedback cannot be sent: {error}"
            raise MinerFault(job.miner, job.commit.seq, reason) from error
