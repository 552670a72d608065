"""Audits of one miner's epoch: what is fetched, in which order it is replayed, and how that ends."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from iota.compute.state import StageState, tensors_digest
from iota.protocol.messages import AuditKind, Outcome
from iota.protocol.receipts import OpKind, Receipt
from iota.spec import RunSpec, StateRule
from validator.audits.budget import Worker
from validator.audits.errors import Absent, Blame, Missing
from validator.audits.evidence import Evidence
from validator.audits.replay import Finding, Replay
from validator.audits.sealed import SealedEpoch
from validator.audits.snapshots import Snapshots, check_committed


@dataclass(frozen=True)
class Task:
    """One audit that the draw demands. `name` is unique for its miner and epoch."""

    kind: AuditKind
    name: str
    seq: int
    step: int = 0


@dataclass(frozen=True)
class Result:
    """How an audit ended: what a verdict says."""

    outcome: Outcome
    seq: int
    profile: str
    expected: str = ""
    found: str = ""
    reason: str = ""
    unproven: bool = False
    """Inconclusive for a cause that lies with the miner."""


class Auditor:
    """Runs audits, one at a time. Every end is a Result; only cancellation and bugs leave as exceptions."""

    def __init__(
        self,
        spec: RunSpec,
        evidence: Evidence,
        snapshots: Snapshots,
        worker: Worker,
        *,
        threads: int = 1,
        most_threads: int = 1,
    ) -> None:
        self.spec = spec
        self._evidence, self._snapshots, self._worker = evidence, snapshots, worker
        self._threads, self._most_threads = threads, most_threads

    def ask_ahead(self, sealed: SealedEpoch, hotkey: str, tasks: Iterable[Task]) -> None:
        """Ask for all snapshots that the tasks will need, so that miners store them meanwhile."""
        joined = sealed.miners[hotkey].joined
        for task in tasks:
            needed = {sealed.version(hotkey, task.step)} if task.kind is not AuditKind.EPOCH else set()
            if task.kind is AuditKind.STEP:
                needed.add(task.step)
            for version in sorted(needed - {joined}):
                self._snapshots.ask(sealed.epoch, hotkey, version)

    async def run(self, sealed: SealedEpoch, hotkey: str, task: Task) -> Result:
        """One audit, to its end."""
        result = Result(Outcome.PASS, task.seq, "")
        try:
            if task.kind is AuditKind.OP:
                return await self._op(sealed, hotkey, task)
            if task.kind is AuditKind.STEP:
                return await self._step(sealed, hotkey, task)
            return await self._epoch(sealed, hotkey, task)
        except Missing as missing:
            return replace(result, outcome=Outcome.INCONCLUSIVE, reason=str(missing))
        except Absent as absent:
            return replace(result, outcome=Outcome.INCONCLUSIVE, reason=str(absent), unproven=True)
        except Blame as blame:
            return of_blame(blame)

    async def check(self, sealed: SealedEpoch, hotkey: str) -> Result | None:
        """What the receipts alone show, without replay: a STEP that leaves the weights as they were."""
        stage = sealed.miners[hotkey].stage
        try:
            base = await self._evidence.base(sealed, stage)
        except Missing:
            before = ""
        else:
            before = await self._worker.run(lambda: tensors_digest(base.weights))
        for step in sealed.steps(hotkey):
            receipt = sealed.step_receipt(hotkey, step)
            assert receipt is not None
            if receipt.state is None:
                return of_blame(Blame(hotkey, receipt.seq, "its STEP receipt commits to no state"))
            moved = bool(sealed.counted(hotkey, step)) and sealed.learning_rate(step) > 0
            if moved and receipt.state.weights == before:
                reason = f"STEP {step} left the weights as they were, though it counts microbatches"
                return of_blame(Blame(hotkey, receipt.seq, reason, found=before))
            before = receipt.state.weights
        return None

    # ---- the three kinds -----------------------------------------------------------------------

    async def _op(self, sealed: SealedEpoch, hotkey: str, task: Task) -> Result:
        receipt = next(r for r in sealed.receipts[hotkey] if r.seq == task.seq)
        version = sealed.version(hotkey, receipt.step)
        if receipt.version != version:
            raise Blame(
                hotkey,
                receipt.seq,
                f"step {receipt.step} uses weight version {version}",
                expected=str(version),
                found=str(receipt.version),
            )
        inputs = await self._evidence.inputs(sealed, hotkey, receipt)
        state = await self._state(sealed, hotkey, version, receipt.seq, moments=False)
        replay = await self._replay(receipt.stage, [receipt])
        await self._worker.run(lambda: replay.load(StageState(state.weights), version))
        finding = await self._worker.run(lambda: replay.op(receipt, version, inputs))
        finding = finding or await self._sent(replay, hotkey, receipt)
        return _result(replay, task, finding)

    async def _step(self, sealed: SealedEpoch, hotkey: str, task: Task) -> Result:
        step, stage = task.step, sealed.miners[hotkey].stage
        uses = sealed.version(hotkey, step)
        state = await self._state(sealed, hotkey, uses, task.seq, moments=uses == step)
        replay = await self._replay(stage, self._receipts_of(sealed, hotkey, [step]))
        await self._worker.run(lambda: replay.load(state, uses))
        finding = await self._sum(replay, sealed, hotkey, step)
        if finding is None:
            if uses != step:
                newest = await self._state(sealed, hotkey, step, task.seq, moments=True)
                await self._worker.run(lambda: replay.adopt(newest, step))
            finding = await self._apply(replay, sealed, hotkey, step)
        return _result(replay, task, finding)

    async def _epoch(self, sealed: SealedEpoch, hotkey: str, task: Task) -> Result:
        miner, steps = sealed.miners[hotkey], sealed.steps(hotkey)
        state = await self._state(sealed, hotkey, miner.joined, task.seq, moments=True)
        replay = await self._replay(miner.stage, self._receipts_of(sealed, hotkey, steps))
        await self._worker.run(lambda: replay.load(state, miner.joined))
        for step in steps:
            finding = await self._sum(replay, sealed, hotkey, step)
            finding = finding or await self._apply(replay, sealed, hotkey, step)
            if finding is not None:
                return _result(replay, task, finding)
        parts = sealed.delta(hotkey)
        whole = steps and steps[-1] == self.spec.schedule.steps - 1
        if parts is not None and whole and replay.profile.exact:
            base = await self._evidence.base(sealed, miner.stage)
            digests = await self._worker.run(lambda: replay.delta_digests(base))
            for number, (digest, part) in enumerate(zip(digests, parts, strict=True)):
                if digest != part.digest:
                    reason = f"part {number} of its pseudo-gradient is not what its steps made"
                    raise Blame(hotkey, task.seq, reason, expected=digest, found=part.digest)
        return _result(replay, task, None)

    # ---- parts of audits -----------------------------------------------------------------------

    async def _sum(self, replay: Replay, sealed: SealedEpoch, hotkey: str, step: int) -> Finding | None:
        """All counted microbatches of a step, in the order of its sum; the first op that fails."""
        uses = sealed.version(hotkey, step)
        for microbatch, attempt in sealed.counted(hotkey, step):
            backward = self._backward_of(sealed, hotkey, step, microbatch, attempt)
            forward = sealed.receipt(hotkey, (step, microbatch, attempt, OpKind.FORWARD))
            inputs = await self._evidence.inputs(sealed, hotkey, backward)
            finding = await self._worker.run(
                lambda b=backward, f=forward, i=inputs: replay.accumulate(b, f, uses, i)  # type: ignore[misc]
            )
            finding = finding or await self._sent(replay, hotkey, forward, backward)
            if finding is not None:
                return finding
        return None

    async def _sent(self, replay: Replay, hotkey: str, *receipts: Receipt | None) -> Finding | None:
        """Across device classes sketches were compared: they must be those of the bytes that were sent."""
        if replay.profile.exact:
            return None
        for receipt in receipts:
            payload = None if receipt is None else await self._evidence.sent_payload(hotkey, receipt)
            if receipt is not None and payload is not None:
                finding = await self._worker.run(
                    lambda r=receipt, p=payload: replay.sent(r, p)  # type: ignore[misc]
                )
                if finding is not None:
                    return finding
        return None

    async def _apply(self, replay: Replay, sealed: SealedEpoch, hotkey: str, step: int) -> Finding | None:
        receipt = sealed.step_receipt(hotkey, step)
        assert receipt is not None
        count, rate = len(sealed.counted(hotkey, step)), sealed.learning_rate(step)
        return await self._worker.run(lambda: replay.step(receipt, count, rate))

    async def _state(
        self, sealed: SealedEpoch, hotkey: str, version: int, seq: int, *, moments: bool
    ) -> StageState:
        """The weights of a version, and its moments where they are needed (empty ones mean zero)."""
        miner = sealed.miners[hotkey]
        if version == miner.joined:
            return await self._start(sealed, hotkey, seq, moments=moments)
        step = sealed.step_receipt(hotkey, version - 1)
        if step is None:
            raise Blame(hotkey, seq, f"it has no STEP receipt for the version {version} that it used")
        state = await self._snapshots.get(sealed.epoch, hotkey, version, miner.stage, seq)
        await self._worker.run(lambda: check_committed(hotkey, state, step, moments=moments))
        return state

    async def _start(self, sealed: SealedEpoch, hotkey: str, seq: int, *, moments: bool) -> StageState:
        """The base, with the moments that the replica carried over where the run carries them."""
        miner = sealed.miners[hotkey]
        base = await self._evidence.base(sealed, miner.stage)
        carries = self.spec.optimizer.state is StateRule.CARRY and sealed.epoch > 0
        last = await self._evidence.last_step(sealed.epoch - 1, hotkey) if moments and carries else None
        if last is None or last.state is None:
            return base
        state = await self._snapshots.get(sealed.epoch, hotkey, miner.joined, miner.stage, seq)
        digest = await self._worker.run(lambda: state.moments_digest)
        # One that fell back to its base, or loaded it anew, starts from zero.
        allowed = (last.state.moments, self._evidence.zero_moments_digest(miner.stage))
        if digest not in allowed:
            reason = "the moments that it began the epoch with are not those it ended the last one with"
            raise Blame(hotkey, last.seq, reason, expected=last.state.moments, found=digest)
        return StageState(base.weights, state.moments)

    def _backward_of(
        self, sealed: SealedEpoch, hotkey: str, step: int, microbatch: int, attempt: int
    ) -> Receipt:
        last = sealed.miners[hotkey].stage == self.spec.last_stage
        kind = OpKind.LOSS if last else OpKind.BACKWARD
        found = sealed.receipt(hotkey, (step, microbatch, attempt, kind))
        if found is None:
            raise Missing(f"microbatch {microbatch} of step {step} counts without a receipt")
        return found

    def _receipts_of(self, sealed: SealedEpoch, hotkey: str, steps: list[int]) -> list[Receipt]:
        return [r for r in sealed.receipts[hotkey] if r.step in steps]

    async def _replay(self, stage: int, receipts: list[Receipt]) -> Replay:
        devices = {receipt.device for receipt in receipts}
        device = devices.pop() if len(devices) == 1 else "mixed"
        return await self._worker.run(
            lambda: Replay(self.spec, stage, device, threads=self._threads, most_threads=self._most_threads)
        )


def of_blame(blame: Blame) -> Result:
    """A failed audit whose proof is what the miner signed or withheld."""
    return Result(Outcome.FAIL, blame.seq, "records", blame.expected, blame.found, blame.reason)


def _result(replay: Replay, task: Task, finding: Finding | None) -> Result:
    if finding is None:
        return Result(Outcome.PASS, task.seq, replay.profile.name)
    off = finding.mismatch
    return Result(Outcome.FAIL, finding.seq, replay.profile.name, off.expected, off.found, off.reason)
