"""The audits that the draw of a sealed epoch demands, and the work that its record pays."""

from __future__ import annotations

from dataclasses import dataclass

from iota.protocol.messages import AuditKind, Outcome
from validator.core.draw import choose, draw
from validator.core.scoring import MinerWork, op_flops
from validator.core.sealed import SealedEpoch
from validator.core.segments import Drawable, Draws, has_turn, is_certain, own_segment, public_turns


@dataclass(frozen=True)
class AuditTask:
    """One audit of one miner's epoch. `name` is unique within its miner and epoch."""

    kind: AuditKind
    name: str
    seq: int
    step: int = 0


WORK_AUDITS = (AuditKind.OP, AuditKind.SEGMENT, AuditKind.WORD)
"""Audits of what is paid, and of words in place of work."""
MERGE_AUDITS = (AuditKind.MERGE, AuditKind.BASE, AuditKind.DELTA)
"""Audits of what came out of a merge."""


def owes(kind: AuditKind, outcome: Outcome) -> bool:
    """Whether a verdict makes its author owe the miner the audit of a segment in the next epoch."""
    withheld = outcome in (Outcome.UNDELIVERED, Outcome.REVOKED)
    undecided = outcome in (Outcome.INCONCLUSIVE, Outcome.UNSHOWN)
    return withheld or (undecided and kind is AuditKind.SEGMENT)


def drawn_tasks(
    sealed: SealedEpoch, draws: Draws, hotkey: str, *, owed: bool = False, public: bool = True
) -> list[AuditTask]:
    """The audits of one miner that the draws demand of one validator, and of its words all.

    Anyone with the public record gets the same.

    Args:
        owed: see `segments.is_certain`.
        public: False leaves out the segments of the public draw.
    """
    spec = sealed.spec
    drawn = draw(spec.id, draws.block_hash, draws.link, sealed.epoch, hotkey)
    certain, validators = is_certain(spec, sealed.epoch, owed=owed), len(sealed.record.validators)
    ops = choose(drawn, spec.audit, sealed.auditable(hotkey), validators, certain=certain)
    tasks = [make_task(AuditKind.OP, r.seq, r.step) for r in ops]
    segments = sealed.segments(hotkey)
    for at in sorted(_drawn_segments(sealed, draws, hotkey, certain=certain, public=public)):
        tasks.append(make_task(AuditKind.SEGMENT, segments[at].seq, segments[at].first))
    words = enumerate(sealed.words(hotkey), 1)
    return tasks + [make_task(AuditKind.WORD, number, word.step) for number, word in words]


def _drawn_segments(
    sealed: SealedEpoch, draws: Draws, hotkey: str, *, certain: bool, public: bool
) -> set[int]:
    """Which of a miner's segments a validator audits, from 0: by its turn, and by its own draw."""
    spec, epoch, count = sealed.spec, sealed.epoch, len(sealed.segments(hotkey))
    known = {**draws.earlier, epoch: Drawable(draws.block_hash, {hotkey: count})}
    turns = public_turns(spec, epoch, hotkey, known.get) if public else ()
    found = {turn.at for turn in turns if has_turn(turn, sealed.record.validators, draws.validator)}
    own = own_segment(
        spec,
        draws.block_hash,
        draws.link,
        epoch,
        hotkey,
        count,
        certain=certain,
        validators=len(sealed.record.validators),
    )
    return found if own is None else found | {own}


def drawable(sealed: SealedEpoch, block_hash: str) -> Drawable:
    """What the public draw of a sealed epoch follows from."""
    counts = {hotkey: len(sealed.segments(hotkey)) for hotkey in sealed.miners}
    return Drawable(block_hash, {hotkey: count for hotkey, count in counts.items() if count})


def named_task(sealed: SealedEpoch, hotkey: str, kind: AuditKind, seq: int) -> AuditTask | None:
    """The task that another validator's verdict names; None if the miner has no such work."""
    if hotkey not in sealed.miners:
        return None
    if kind is AuditKind.OP:
        return next((make_task(kind, r.seq, r.step) for r in sealed.auditable(hotkey) if r.seq == seq), None)
    if kind is AuditKind.SEGMENT:
        return next((make_task(kind, s.seq, s.first) for s in sealed.segments(hotkey) if s.seq == seq), None)
    return None


def segment_seqs(sealed: SealedEpoch, hotkey: str) -> tuple[int, ...]:
    """Seqs of the COMMITs that end the miner's segments, in order, as they may be drawn."""
    return tuple(segment.seq for segment in sealed.segments(hotkey))


def task_name(kind: AuditKind, seq: int) -> str:
    """The name of a task, from what its verdicts name it by."""
    return f"{kind}:{seq}"


def make_task(kind: AuditKind, seq: int, step: int = 0) -> AuditTask:
    """The task with the name that follows from its kind and number."""
    return AuditTask(kind, task_name(kind, seq), seq, step)


def records_task(seq: int) -> AuditTask:
    """The task of a fault that no draw asked for, since the records themselves prove it."""
    return make_task(AuditKind.RECORDS, seq)


def seal_task(seq: int) -> AuditTask:
    """The task that stands for all audits of a miner in an epoch with a broken seal."""
    return AuditTask(AuditKind.OP, "seal", seq)


def epoch_work(sealed: SealedEpoch) -> list[MinerWork]:
    """The work of each miner of the epoch, by hotkey."""
    return [
        MinerWork(
            epoch=sealed.epoch,
            hotkey=hotkey,
            owner=sealed.owner_of(hotkey),
            flops=sum(
                op_flops(sealed.spec, receipt, weight_gradient=sealed.is_summed(hotkey, receipt))
                for receipt in sealed.paid(hotkey)
            ),
            ended=sealed.ended_work(hotkey),
            withdrawn=miner.withdrawn,
            segments=segment_seqs(sealed, hotkey),
        )
        for hotkey, miner in sorted(sealed.miners.items())
    ]
