"""The audits that the draw of a sealed epoch demands, and the work that its record pays."""

from __future__ import annotations

from dataclasses import dataclass

from iota.protocol.messages import AuditKind
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


def drawn_tasks(sealed: SealedEpoch, block_hash: str, link: str, hotkey: str) -> list[AuditTask]:
    """The audits that the draw demands of one miner, and of its words all. Anyone gets the same."""
    spec = sealed.spec
    drawn = choose(
        draw(spec.id, block_hash, link, sealed.epoch, hotkey),
        spec.audit,
        sealed.auditable(hotkey),
        sealed.steps(hotkey),
        sealed.last_life(hotkey).joined,
    )
    tasks = [AuditTask(AuditKind.OP, f"op:{r.seq}", r.seq, r.step) for r in drawn.ops]
    if drawn.step is not None:
        receipt = sealed.step_receipt(hotkey, drawn.step)
        assert receipt is not None
        tasks.append(AuditTask(AuditKind.STEP, f"step:{drawn.step}", receipt.seq, drawn.step))
    if drawn.epoch:
        receipt = sealed.step_receipt(hotkey, sealed.steps(hotkey)[-1])
        assert receipt is not None
        tasks.append(AuditTask(AuditKind.EPOCH, "epoch", receipt.seq))
    words = enumerate(sealed.words(hotkey), 1)
    return tasks + [AuditTask(AuditKind.WORD, f"word:{n}", n, word.step) for n, word in words]


def records_task(seq: int) -> AuditTask:
    """The task of a fault that no draw asked for, since the records themselves prove it."""
    return AuditTask(AuditKind.OP, f"records:{seq}", seq)


def seal_task(seq: int) -> AuditTask:
    """The task that stands for all audits of a miner in an epoch with a broken seal."""
    return AuditTask(AuditKind.OP, "seal", seq)


def epoch_work(sealed: SealedEpoch) -> list[MinerWork]:
    """The work of each miner of the epoch, by hotkey."""
    return [
        MinerWork(
            epoch=sealed.epoch,
            hotkey=hotkey,
            flops=sum(op_flops(sealed.spec, receipt) for receipt in sealed.paid(hotkey)),
            ended=sealed.ended_work(hotkey),
            withdrawn=miner.withdrawn,
        )
        for hotkey, miner in sorted(sealed.miners.items())
    ]
