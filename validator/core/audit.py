"""One audit of one miner's epoch: which evidence it needs, the order of its replay, and its result."""

from __future__ import annotations

from iota.protocol.frames import Direction
from iota.protocol.messages import AuditKind
from iota.protocol.receipts import OpKind, Receipt
from iota.protocol.records import LifeRecord
from iota.spec import StateRule
from iota.wire.receipt_form import input_headers
from validator.core import jobs, results
from validator.core.facts import TransportFailed
from validator.core.jobs import Base, OpInputs, Script
from validator.core.results import EvidenceMissing, MinerFault, Profile, ReplayMismatch, Result, Undelivered
from validator.core.sealed import SealedEpoch
from validator.core.snapshots import Snapshots
from validator.core.tasks import AuditTask


def needed_versions(sealed: SealedEpoch, hotkey: str, task: AuditTask) -> list[int]:
    """Weight versions whose snapshots an audit needs for certain, so that they can be asked for early."""
    life = _life(sealed, hotkey, task)
    needed = set()
    if task.kind is not AuditKind.EPOCH:
        needed.add(sealed.spec.weight_version(task.step, life.joined))
    if task.kind is AuditKind.STEP:
        needed.add(task.step)
    return sorted(needed - {life.joined})


def _life(sealed: SealedEpoch, hotkey: str, task: AuditTask) -> LifeRecord:
    """The life of the miner that an audit looks at: that of the audited op, else the last."""
    if task.kind is not AuditKind.OP:
        return sealed.last_life(hotkey)
    return sealed.life(hotkey, next(r for r in sealed.receipts[hotkey] if r.seq == task.seq))


class Audit:
    """The script of one audit.

    Evidence is fetched in the order of its use. The verdict then names the first op that fails, and a miner
    is not accused of withholding a snapshot when the store has lost evidence that comes before it.
    """

    def __init__(self, sealed: SealedEpoch, hotkey: str, task: AuditTask, snapshots: Snapshots) -> None:
        self._spec, self._sealed, self._hotkey, self._task = sealed.spec, sealed, hotkey, task
        self._snapshots = snapshots
        self._miner, self._life = sealed.miners[hotkey], _life(sealed, hotkey, task)
        self._base = Base(sealed.epoch, self._miner.stage, sealed.base(self._miner.stage))
        self._steps = [task.step] if task.kind is AuditKind.STEP else sealed.steps(hotkey)
        own = sealed.receipts[hotkey]
        if task.kind is AuditKind.WORD:
            self._receipts = list(own)  # of its ops, which name its device: this one has no receipt
        elif task.kind is AuditKind.OP:
            self._receipts = [receipt for receipt in own if receipt.seq == task.seq]
        else:
            trained = [r for r in own if r.kind is not OpKind.MERGE and r.step in self._steps]
            self._receipts = [r for r in trained if sealed.life(hotkey, r) is self._life]
        devices = {receipt.device for receipt in self._receipts}
        self._device = devices.pop() if len(devices) == 1 else "mixed"
        self._profile: Profile | None = None

    def run(self) -> Script[Result]:
        """Run the audit. Lost evidence and faults are results too."""
        kinds = {
            AuditKind.OP: self._op,
            AuditKind.STEP: self._step,
            AuditKind.EPOCH: self._epoch,
            AuditKind.WORD: self._word,
        }
        ending: results.Ending
        try:
            ending = yield from kinds[self._task.kind]()
        except (MinerFault, Undelivered, EvidenceMissing) as error:
            ending = error
        except TransportFailed as error:
            return results.inconclusive(self._task.seq, f"evidence cannot be fetched: {error}")
        return results.result_of(ending, self._task.seq, self._profile.name if self._profile else "")

    # ---- the four kinds -----------------------------------------------------------------------

    def _op(self) -> Script[ReplayMismatch | None]:
        receipt = self._receipts[0]
        version = self._spec.weight_version(receipt.step, self._life.joined)
        inputs = yield from self._inputs(receipt)
        yield from self._load(version, moments=False)
        return (yield from self._replay(receipt, None, version, inputs))

    def _step(self) -> Script[ReplayMismatch | None]:
        step = self._task.step
        uses = self._sealed.version(self._hotkey, step)
        yield from self._load(uses, moments=uses == step)
        mismatch = yield from self._sum(step)
        if mismatch is None:
            if uses != step:
                yield from self._load(step, moments=True, on_top=True)
            mismatch = yield self._apply(step)
        return mismatch

    def _epoch(self) -> Script[ReplayMismatch | None]:
        yield from self._load(self._life.joined, moments=True)
        for step in self._steps:
            mismatch = (yield from self._sum(step)) or (yield self._apply(step))
            if mismatch is not None:
                return mismatch
        yield from self._check_delta()
        return None

    def _word(self) -> Script[ReplayMismatch | None]:
        """Repeat an op that the miner says gives NaN or Inf, from the frames that the record names."""
        word = self._sealed.words(self._hotkey)[self._task.seq - 1]
        payloads: dict[Direction, bytes] = {}
        for notice in word.inputs:
            name = notice.name
            comes_from = word.stage + (-1 if name.direction is Direction.FORWARD else 1)
            if (name.epoch, name.step, name.microbatch, name.stage) != (
                word.epoch, word.step, word.microbatch, comes_from
            ):  # fmt: skip
                raise EvidenceMissing("the record names inputs of another op for a word")
            payloads[name.direction] = yield jobs.FetchAnnounced(notice)
        if word.stage > 0 and Direction.FORWARD not in payloads:
            raise EvidenceMissing("the record names no input for a word")
        tokens = yield jobs.FetchTokens(word)
        version = self._sealed.version(self._hotkey, word.step)
        yield from self._load(version, moments=False)
        inputs = OpInputs(tokens, payloads.get(Direction.FORWARD), payloads.get(Direction.BACKWARD))
        finite: bool = yield jobs.ReplayWord(word, version, inputs)
        if not finite:
            return None
        reason = f"it said NaN or Inf of microbatch {word.microbatch} of step {word.step}; a replay is finite"
        return ReplayMismatch(self._task.seq, "finite values", "NaN or Inf", reason)

    # ---- parts of audits -----------------------------------------------------------------------

    def _sum(self, step: int) -> Script[ReplayMismatch | None]:
        """Replay a step's counted microbatches in the order of its sum; returns the first mismatch."""
        version = self._sealed.version(self._hotkey, step)
        last = self._miner.stage == self._spec.last_stage
        for microbatch, attempt in self._sealed.counted(self._hotkey, step):
            kind = OpKind.LOSS if last else OpKind.BACKWARD
            backward = self._sealed.receipt(self._hotkey, step, microbatch, attempt, kind)
            if backward is None:
                raise EvidenceMissing(f"microbatch {microbatch} of step {step} counts without a receipt")
            forward = self._sealed.receipt(self._hotkey, step, microbatch, attempt, OpKind.FORWARD)
            inputs = yield from self._inputs(backward)
            mismatch = yield from self._replay(backward, forward, version, inputs)
            if mismatch is not None:
                return mismatch
        return None

    def _replay(
        self, receipt: Receipt, forward: Receipt | None, version: int, inputs: OpInputs
    ) -> Script[ReplayMismatch | None]:
        mismatch: ReplayMismatch | None = yield jobs.ReplayOp(receipt, forward, version, inputs)
        assert self._profile is not None
        if self._profile.exact:
            return mismatch
        # Across device classes only sketches were compared, so they must match the bytes that were sent.
        for sent in (forward, receipt):
            if mismatch is None and sent is not None:
                mismatch = yield jobs.CheckSent(self._hotkey, sent)
        return mismatch

    def _apply(self, step: int) -> jobs.ReplayStep:
        """The replay of STEP over the counted microbatches."""
        receipt = self._sealed.step_receipt(self._hotkey, step)
        assert receipt is not None
        count = len(self._sealed.counted(self._hotkey, step))
        return jobs.ReplayStep(receipt, count, self._sealed.learning_rate(step))

    def _check_delta(self) -> Script[None]:
        """The contributed pseudo-gradient must be what the steps made (exact profile, complete epoch)."""
        parts = self._sealed.delta(self._hotkey)
        whole = self._steps[-1:] == [self._spec.schedule.steps - 1]
        if parts is None or not whole or self._profile is None or not self._profile.exact:
            return
        digests: list[str] = yield jobs.HashDelta(self._base)
        for number, (digest, part) in enumerate(zip(digests, parts, strict=True)):
            if digest != part.digest:
                reason = f"part {number} of its pseudo-gradient is not what its steps made"
                seq, found = self._task.seq, part.digest
                raise MinerFault(self._hotkey, seq, reason, expected=digest, found=found)

    def _inputs(self, receipt: Receipt) -> Script[OpInputs]:
        """Fetch the inputs that a receipt names. Raises MinerFault if its op has other inputs."""
        try:
            headers = input_headers(self._spec, receipt)
        except ValueError as error:
            raise MinerFault(self._hotkey, receipt.seq, f"its receipt {error}") from None
        payloads: dict[Direction, bytes] = {}
        for header in headers:
            payloads[header.name.direction] = yield jobs.FetchFrame(header)
        tokens = yield jobs.FetchTokens(receipt)
        return OpInputs(tokens, payloads.get(Direction.FORWARD), payloads.get(Direction.BACKWARD))

    # ---- states --------------------------------------------------------------------------------

    def _load(self, version: int, *, moments: bool, on_top: bool = False) -> Script[None]:
        """Load the weights of a version, and its moments if they are needed (else they are zero)."""
        if version == self._life.joined:
            self._profile = yield from self._load_base(moments=moments)
            return
        step = self._sealed.step_receipt(self._hotkey, version - 1)
        if step is None:
            reason = f"it has no STEP receipt for the version {version} that it used"
            raise MinerFault(self._hotkey, self._task.seq, reason)
        snapshot = yield from self._snapshots.get(self._hotkey, self._miner.stage, version, self._task.seq)
        self._profile = yield jobs.LoadSnapshot(snapshot, step, self._device, moments, on_top)

    def _load_base(self, *, moments: bool) -> Script[Profile]:
        """Load the base. With `moments`, and if the run carries them over, also those of the last epoch.

        A life that took the base anew has carried none.
        """
        version, epoch = self._life.joined, self._sealed.epoch
        carries = self._spec.optimizer.state is StateRule.CARRY and epoch > 0
        carries = carries and self._life is self._miner.lives[0]
        load = jobs.LoadBase(self._base, version, self._device)
        if moments and carries:
            yield jobs.FetchBase(self._base)
            last: Receipt | None = yield jobs.FetchLastStep(epoch - 1, self._hotkey)
            if last is not None and last.state is not None:
                carried = yield from self._snapshots.get(
                    self._hotkey, self._miner.stage, version, self._task.seq
                )
                load = jobs.LoadBase(self._base, version, self._device, carried, last)
        profile: Profile = yield load
        return profile
