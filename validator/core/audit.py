"""One audit of one miner's epoch: which evidence it needs, the order of its replay, and its result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from iota.protocol.frames import Direction
from iota.protocol.merkle import EMPTY
from iota.protocol.messages import AuditKind
from iota.protocol.receipts import OpKind, Receipt
from iota.protocol.records import LifeRecord
from iota.wire.frame import FrameHeader
from iota.wire.receipt_form import input_headers
from validator.core import jobs, results
from validator.core.deliveries import Awaited, Deliveries, Piece
from validator.core.facts import TransportFailed
from validator.core.jobs import Base, OpInputs, OwnStart, Script, Shown
from validator.core.receipt_checks import begins_with
from validator.core.results import (
    EvidenceMissing,
    MinerFault,
    Profile,
    ReplayMismatch,
    Result,
    StoreAway,
    Undelivered,
)
from validator.core.sealed import SealedEpoch, Segment
from validator.core.tasks import AuditTask


def needed_pieces(sealed: SealedEpoch, hotkey: str, task: AuditTask) -> list[Piece]:
    """The states that an audit needs on any device, so that they can be asked for early; of an op none."""
    pieces = [Piece.snapshot(version) for version in _needed_versions(sealed, hotkey, task)]
    if task.kind is AuditKind.SEGMENT and _shown_feedback(sealed, hotkey) is not None:
        pieces.append(Piece.feedback(sealed.last_life(hotkey).joined))
    return pieces


def _needed_versions(sealed: SealedEpoch, hotkey: str, task: AuditTask) -> list[int]:
    if task.kind is AuditKind.OP:
        return []
    life = sealed.last_life(hotkey)
    if task.kind is AuditKind.WORD:
        return [v for v in [_start(sealed, hotkey, task)] if v != life.joined]
    segment, last = _segment(sealed, hotkey, task), sealed.spec.schedule.steps
    needed = set()
    if segment.first != life.joined or begins_with(sealed, hotkey, life) is not None:
        needed.add(segment.first)
    if segment.last != last and sealed.delta(hotkey) is not None:
        needed.add(last)
    return sorted(needed)


def _shown_feedback(sealed: SealedEpoch, hotkey: str) -> Receipt | None:
    """The COMMIT to the error feedback that a contributor's pseudo-gradient has; None where it has none."""
    if sealed.delta(hotkey) is None:
        return None
    commits = sealed.commits(hotkey, sealed.last_life(hotkey))
    first = commits[0] if commits else None
    shown = first is not None and first.commitment is not None and first.commitment.feedback != EMPTY
    return first if shown else None


def _life(sealed: SealedEpoch, hotkey: str, task: AuditTask) -> LifeRecord:
    """The life of the miner that an audit looks at: that of the audited op, else the last."""
    if task.kind is not AuditKind.OP:
        return sealed.last_life(hotkey)
    return sealed.life(hotkey, next(r for r in sealed.receipts[hotkey] if r.seq == task.seq))


def started_with(sealed: SealedEpoch, hotkey: str, life: LifeRecord) -> Base:
    """What a life began with: the anchor, or its own start from it, by its first COMMIT."""
    stage = sealed.miners[hotkey].stage
    anchor, first = sealed.anchor(stage), sealed.first_commit(hotkey, life)
    base = Base(sealed.spec.anchor(sealed.epoch), stage, anchor)
    if not life.began or first is None or first.commitment is None:
        return base
    if anchor is not None and first.commitment.base == anchor.digest:
        return base
    return replace(base, own=OwnStart(hotkey, first, life.began))


def _segment(sealed: SealedEpoch, hotkey: str, task: AuditTask) -> Segment:
    return next(segment for segment in sealed.segments(hotkey) if segment.seq == task.seq)


def _start(sealed: SealedEpoch, hotkey: str, task: AuditTask) -> int:
    """The version that a replay of a word starts from: the newest committed one up to its op's own."""
    life, version = sealed.last_life(hotkey), sealed.version(hotkey, task.step)
    commits = (receipt.version for receipt in sealed.commits(hotkey, life))
    return max((v for v in commits if v <= version), default=life.joined)


class Audit:
    """The script of one audit.

    Evidence is fetched in the order of its use. The verdict then names the first op that fails, and a miner
    is not accused of withholding a snapshot when evidence that comes before it is gone.
    """

    def __init__(self, sealed: SealedEpoch, hotkey: str, task: AuditTask, deliveries: Deliveries) -> None:
        self._spec, self._sealed, self._hotkey, self._task = sealed.spec, sealed, hotkey, task
        self._deliveries = deliveries
        self._miner, self._life = sealed.miners[hotkey], _life(sealed, hotkey, task)
        self._base = started_with(sealed, hotkey, self._life)
        self._commits = {receipt.version: receipt for receipt in sealed.commits(hotkey, self._life)}
        own = [r for r in sealed.receipts[hotkey] if r.kind is not OpKind.MERGE]
        devices = {r.device for r in own if sealed.life(hotkey, r) is self._life}
        self._shown = self._device_of_life(devices.pop() if len(devices) == 1 else "mixed")
        self._profile: Profile | None = None
        self._at = 0
        """The step under replay."""

    def run(self) -> Script[Result]:
        """Run the audit. Lost evidence and faults are results too."""
        kinds = {AuditKind.OP: self._op, AuditKind.SEGMENT: self._replay_segment, AuditKind.WORD: self._word}
        ending: results.Ending
        try:
            ending = yield from kinds[self._task.kind]()
        except (MinerFault, Undelivered, EvidenceMissing) as error:
            ending = error
        except TransportFailed as error:
            return results.inconclusive(self._task.seq, f"evidence cannot be fetched: {error}")
        return results.result_of(ending, self._task.seq, self._profile.name if self._profile else "")

    def _device_of_life(self, device: str) -> Shown:
        commit = self._commits.get(self._life.joined)
        made = None if commit is None else commit.commitment
        if made is None or made.beginning is None:
            return Shown(device)
        nonce = made.nonce(self._spec.id, self._sealed.epoch, self._hotkey)
        assert nonce is not None
        return Shown(device, made.beginning.fingerprint, nonce)

    # ---- the three kinds ----------------------------------------------------------------------

    def _op(self) -> Script[ReplayMismatch | None]:
        receipt = next(r for r in self._sealed.receipts[self._hotkey] if r.seq == self._task.seq)
        inputs = yield from self._inputs(receipt)
        self._profile = yield from self._load_base(whole=False)
        return (yield from self._replay(receipt, None, receipt.version, inputs))

    def _replay_segment(self) -> Script[ReplayMismatch | None]:
        segment = _segment(self._sealed, self._hotkey, self._task)
        yield from self._load(segment.first, whole=True)
        if not self._is_exact:  # now, so that nothing is replayed twice for a snapshot that is not there yet
            self._deliveries.expect(self._hotkey, self._at_end(segment))
        try:
            mismatch = yield from self._steps(segment.first, segment.last)
        except Awaited:
            yield from self._look_ahead(range(self._at, segment.last))
            raise
        mismatch = mismatch or (yield from self._end(segment))
        if mismatch is None:
            yield from self._check_delta(segment)
        return mismatch

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
            payload = yield from self._frame(jobs.FetchAnnounced(notice), word.step)
            assert payload is not None
            payloads[name.direction] = payload
        if word.stage > 0 and Direction.FORWARD not in payloads:
            raise EvidenceMissing("the record names no input for a word")
        tokens = yield jobs.FetchTokens(word)
        version = self._sealed.version(self._hotkey, word.step)
        start = _start(self._sealed, self._hotkey, self._task)
        yield from self._load(start, whole=start != version)
        mismatch = yield from self._steps(start, version)
        if mismatch is not None:
            return mismatch
        inputs = OpInputs(tokens, payloads.get(Direction.FORWARD), payloads.get(Direction.BACKWARD))
        finite: bool = yield jobs.ReplayWord(word, version, inputs)
        if not finite:
            return None
        reason = f"it said NaN or Inf of microbatch {word.microbatch} of step {word.step}; a replay is finite"
        return ReplayMismatch(self._task.seq, "finite values", "NaN or Inf", reason)

    # ---- parts of audits -----------------------------------------------------------------------

    @property
    def _is_exact(self) -> bool:
        assert self._profile is not None
        return self._profile.exact

    def _steps(self, first: int, last: int) -> Script[ReplayMismatch | None]:
        """Replay steps `first` to `last` - 1 from version `first`; returns the first mismatch."""
        for step in range(first, last):
            self._at = step
            receipt = self._sealed.step_receipt(self._hotkey, step)
            if receipt is None:
                reason = f"it has no STEP receipt for the version {step + 1} that it used"
                raise MinerFault(self._hotkey, self._task.seq, reason)
            mismatch = yield from self._sum(step)
            if mismatch is None:
                count = len(self._sealed.counted(self._hotkey, step))
                mismatch = yield jobs.ReplayStep(receipt, count, self._sealed.learning_rate(step))
            if mismatch is not None:
                return mismatch
        return None

    def _sum(self, step: int) -> Script[ReplayMismatch | None]:
        """Replay a step's counted microbatches in the order of its sum, then the ops that stand alone.

        Returns the first mismatch.
        """
        version = self._sealed.version(self._hotkey, step)
        for forward, backward in self._summed(step):
            inputs = yield from self._inputs(backward)
            mismatch = yield from self._replay(backward, forward, version, inputs)
            if mismatch is not None:
                return mismatch
        for alone in self._sealed.alone(self._hotkey, step):
            inputs = yield from self._inputs(alone)
            mismatch = yield from self._replay(alone, None, version, inputs)
            if mismatch is not None:
                return mismatch
        return None

    def _summed(self, step: int) -> Iterator[tuple[Receipt | None, Receipt]]:
        """FORWARD, if there is one, and BACKWARD or LOSS of each microbatch in a step's sum, in its order."""
        kind = OpKind.LOSS if self._miner.stage == self._spec.last_stage else OpKind.BACKWARD
        for microbatch, attempt in self._sealed.counted(self._hotkey, step):
            backward = self._sealed.receipt(self._hotkey, step, microbatch, attempt, kind)
            if backward is None:
                raise EvidenceMissing(f"microbatch {microbatch} of step {step} counts without a receipt")
            yield self._sealed.receipt(self._hotkey, step, microbatch, attempt, OpKind.FORWARD), backward

    def _replay(
        self, receipt: Receipt, forward: Receipt | None, version: int, inputs: OpInputs
    ) -> Script[ReplayMismatch | None]:
        """Replay an op and compare it with what was sent: by its digest, or whole across device classes."""
        sent = forward_sent = None
        if not self._is_exact:
            if forward is not None:
                forward_sent = yield from self._frame(jobs.FetchSent(self._hotkey, forward), forward.step)
            sent = yield from self._frame(jobs.FetchSent(self._hotkey, receipt), receipt.step)
        mismatch: ReplayMismatch | None = yield jobs.ReplayOp(
            receipt, forward, version, inputs, sent, forward_sent
        )
        return mismatch

    def _at_end(self, segment: Segment) -> list[Piece]:
        """The states that are compared after the replay, where bits cannot be."""
        whole = [self._spec.schedule.steps] if self._sealed.delta(self._hotkey) is not None else []
        pieces = [Piece.snapshot(version) for version in (segment.last, *whole)]
        if _shown_feedback(self._sealed, self._hotkey) is not None:
            pieces.append(Piece.feedback(self._life.joined))
        return pieces

    def _end(self, segment: Segment) -> Script[ReplayMismatch | None]:
        """Compare the state after the replay with what the miner committed to."""
        commit = self._commits[segment.last]
        job: jobs.AuditJob = jobs.CompareRoots(commit)
        if not self._is_exact:
            job = jobs.CompareState(self._snapshot(segment.last), commit)
        mismatch: ReplayMismatch | None = yield job
        return mismatch

    def _check_delta(self, segment: Segment) -> Script[None]:
        """The contributed pseudo-gradient must be, to the bit, that of the weights last committed to."""
        parts, last = self._sealed.delta(self._hotkey), self._spec.schedule.steps
        if parts is None:
            return
        commit, snapshot = self._commits[last], None
        if segment.last != last or not self._is_exact:
            snapshot = self._snapshot(last)
        shown, held = _shown_feedback(self._sealed, self._hotkey), None
        if shown is not None:
            held = self._deliveries.feedback(self._hotkey, self._miner.stage, self._life.joined, shown)
        made: jobs.Encoded = yield jobs.HashDelta(self._hotkey, self._base, commit, snapshot, held)
        for number, (digest, part) in enumerate(zip(made.parts, parts, strict=True)):
            if digest != part.digest:
                reason = f"part {number} of its pseudo-gradient is not that of the weights it committed to"
                raise MinerFault(self._hotkey, commit.seq, reason, expected=digest, found=part.digest)
        said = commit.commitment.feedback if commit.commitment is not None else EMPTY
        if said != made.left:
            reason = "the error feedback that it committed to is not what its pseudo-gradient leaves"
            raise MinerFault(self._hotkey, commit.seq, reason, expected=made.left, found=said)

    def _inputs(self, receipt: Receipt) -> Script[OpInputs]:
        """Fetch the inputs that a receipt names. Raises MinerFault if its op has other inputs."""
        payloads: dict[Direction, bytes] = {}
        for header in self._headers(receipt):
            payload = yield from self._frame(jobs.FetchFrame(header), receipt.step)
            assert payload is not None
            payloads[header.name.direction] = payload
        tokens = yield jobs.FetchTokens(receipt)
        return OpInputs(tokens, payloads.get(Direction.FORWARD), payloads.get(Direction.BACKWARD))

    def _headers(self, receipt: Receipt) -> list[FrameHeader]:
        try:
            return input_headers(self._spec, receipt)
        except ValueError as error:
            raise MinerFault(self._hotkey, receipt.seq, f"its receipt {error}") from None

    def _frame(
        self, job: jobs.FetchFrame | jobs.FetchSent | jobs.FetchAnnounced, step: int
    ) -> Script[bytes | None]:
        """The payload of a frame. What the store does not show, the miner must: it has kept what it names.

        Raises Undelivered and Awaited.
        """
        payload: bytes | None
        try:
            payload = yield job
        except StoreAway:
            raise
        except EvidenceMissing:
            kept = self._deliveries.frames(self._hotkey, self._miner.stage, step)
            payload = yield replace(job, kept=kept)
        return payload

    def _look_ahead(self, steps: range) -> Script[None]:
        """Ask for the frames of each step that the store lacks, so that the replay begins anew once."""
        for step in steps:
            try:
                yield from self._frames_of(step)
            except StoreAway:
                return
            except EvidenceMissing:
                self._deliveries.ask(self._hotkey, [Piece.frames(step)])
            except (MinerFault, TransportFailed):  # the replay finds it, if it comes so far
                return

    def _frames_of(self, step: int) -> Iterator[jobs.FetchFrame | jobs.FetchSent]:
        """What a replay of a step fetches of frames. Raises MinerFault as `_headers`."""
        for forward, backward in self._summed(step):
            for header in self._headers(backward):
                yield jobs.FetchFrame(header)
            if not self._is_exact:
                yield from (jobs.FetchSent(self._hotkey, r) for r in (forward, backward) if r is not None)
        for alone in self._sealed.alone(self._hotkey, step):
            for header in self._headers(alone):
                yield jobs.FetchFrame(header)
            if not self._is_exact:
                yield jobs.FetchSent(self._hotkey, alone)

    # ---- states --------------------------------------------------------------------------------

    def _snapshot(self, version: int) -> jobs.Snapshot:
        return self._deliveries.snapshot(self._hotkey, self._miner.stage, version, self._task.seq)

    def _load(self, version: int, *, whole: bool) -> Script[None]:
        """Load a version that the life committed to, or the base; `whole` to run STEPs on top of it."""
        if version == self._life.joined:
            self._profile = yield from self._load_base(whole=whole)
            return
        snapshot = self._snapshot(version)
        self._profile = yield jobs.LoadSnapshot(snapshot, self._commits[version], self._shown, whole)

    def _load_base(self, *, whole: bool) -> Script[Profile]:
        """Load the base, and to run STEPs the moments that the miner carried over, if the run has that."""
        version, carried = self._life.joined, None
        commit = self._commits.get(version)
        if whole and commit is not None and begins_with(self._sealed, self._hotkey, self._life) is not None:
            yield jobs.FetchBase(self._base)
            carried = jobs.Carried(self._snapshot(version), commit)
        profile: Profile = yield jobs.LoadBase(self._base, version, self._shown, carried)
        return profile
