"""The audits that the draw of a sealed epoch demands, and the work that its record pays."""

from __future__ import annotations

from dataclasses import dataclass

from iota.protocol.messages import AuditKind, Outcome
from iota.spec import RunSpec
from validator.core.draw import choose, draw
from validator.core.scoring import MinerWork, op_flops
from validator.core.sealed import SealedEpoch


@dataclass(frozen=True)
class AuditTask:
    """One audit of one miner's epoch. `name` is unique within its miner and epoch."""

    kind: AuditKind
    name: str
    seq: int
    step: int = 0


STEP_AUDITS = (AuditKind.STEP, AuditKind.EPOCH)
"""Audits that replay a STEP: a passed one vests work."""
WORK_AUDITS = (AuditKind.OP, *STEP_AUDITS, AuditKind.WORD)
"""Audits of what is paid, and of words in place of work."""
MERGE_AUDITS = (AuditKind.MERGE, AuditKind.BASE, AuditKind.DELTA)
"""Audits of what came out of a merge."""


def owes(kind: AuditKind, outcome: Outcome) -> bool:
    """Whether a verdict makes its author owe the miner an audit of a STEP in the next epoch."""
    withheld = outcome in (Outcome.UNDELIVERED, Outcome.REVOKED)
    return withheld or (outcome is Outcome.INCONCLUSIVE and kind in STEP_AUDITS)


def is_certain(spec: RunSpec, epoch: int, *, owed: bool) -> bool:
    """Whether a STEP of every epoch of a miner is audited: in the run's last epoch, and where one is `owed`.

    A validator owes a miner one if of the epoch before it published a verdict on that miner which `owes`. So
    it depends on verdicts that are signed and public.
    """
    return owed or epoch == spec.schedule.epochs - 1


def drawn_tasks(
    sealed: SealedEpoch, block_hash: str, link: str, hotkey: str, *, owed: bool = False
) -> list[AuditTask]:
    """The audits that the draw demands of one miner, and of its words all.

    Anyone with the public record gets the same.

    Args:
        owed: see `is_certain`.
    """
    spec = sealed.spec
    drawn = choose(
        draw(spec.id, block_hash, link, sealed.epoch, hotkey),
        spec.audit,
        sealed.auditable(hotkey),
        sealed.steps(hotkey),
        sealed.last_life(hotkey).joined,
        certain=is_certain(spec, sealed.epoch, owed=owed),
    )
    tasks = [make_task(AuditKind.OP, r.seq, r.step) for r in drawn.ops]
    if drawn.step is not None:
        receipt = sealed.step_receipt(hotkey, drawn.step)
        assert receipt is not None
        tasks.append(make_task(AuditKind.STEP, receipt.seq, drawn.step))
    if drawn.epoch:
        receipt = sealed.step_receipt(hotkey, sealed.steps(hotkey)[-1])
        assert receipt is not None
        tasks.append(make_task(AuditKind.EPOCH, receipt.seq))
    words = enumerate(sealed.words(hotkey), 1)
    return tasks + [make_task(AuditKind.WORD, number, word.step) for number, word in words]


def named_task(sealed: SealedEpoch, hotkey: str, kind: AuditKind, seq: int) -> AuditTask | None:
    """The task that another validator's verdict names; None if the miner has no such work."""
    if hotkey not in sealed.miners:
        return None
    if kind is AuditKind.OP:
        return next((make_task(kind, r.seq, r.step) for r in sealed.auditable(hotkey) if r.seq == seq), None)
    steps = step_seqs(sealed, hotkey)
    if kind is AuditKind.STEP and seq in steps:
        return make_task(kind, seq, sealed.steps(hotkey)[steps.index(seq)])
    return make_task(kind, seq) if kind is AuditKind.EPOCH and seq in steps[-1:] else None


def step_seqs(sealed: SealedEpoch, hotkey: str) -> tuple[int, ...]:
    """Seqs of the miner's STEP receipts, in order of the steps that may be drawn."""
    receipts = (sealed.step_receipt(hotkey, step) for step in sealed.steps(hotkey))
    return tuple(receipt.seq for receipt in receipts if receipt is not None)


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
            steps=step_seqs(sealed, hotkey),
        )
        for hotkey, miner in sorted(sealed.miners.items())
    ]
