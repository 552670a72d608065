"""What a sealed epoch demands of a validator, and what it pays: from the record, the link and the block."""

from __future__ import annotations

from iota.protocol.messages import AuditKind
from validator.audits.audit import Task
from validator.audits.sealed import SealedEpoch
from validator.core.sampling import choose, draw
from validator.core.scoring import EpochWork, op_flops


def tasks_for(sealed: SealedEpoch, block_hash: str, link: str, hotkey: str) -> list[Task]:
    """The audits that the draw demands of one miner; the same for everybody who computes it."""
    spec, miner = sealed.spec, sealed.miners[hotkey]
    drawn = choose(
        draw(spec.id, block_hash, link, sealed.epoch, hotkey),
        spec.audit,
        sealed.auditable(hotkey),
        sealed.steps(hotkey),
        miner.joined,
    )
    tasks = [Task(AuditKind.OP, f"op:{r.seq}", r.seq, r.step) for r in drawn.ops]
    if drawn.step is not None:
        receipt = sealed.step_receipt(hotkey, drawn.step)
        assert receipt is not None
        tasks.append(Task(AuditKind.STEP, f"step:{drawn.step}", receipt.seq, drawn.step))
    if drawn.epoch:
        receipt = sealed.step_receipt(hotkey, sealed.steps(hotkey)[-1])
        assert receipt is not None
        tasks.append(Task(AuditKind.EPOCH, "epoch", receipt.seq))
    return tasks


def work_of(sealed: SealedEpoch) -> list[EpochWork]:
    """What each miner of the epoch did."""
    return [
        EpochWork(
            epoch=sealed.epoch,
            hotkey=hotkey,
            flops=sum(op_flops(sealed.spec, receipt) for receipt in sealed.paid(hotkey)),
            ended=sealed.ended_work(hotkey),
            withdrawn=miner.withdrawn,
        )
        for hotkey, miner in sorted(sealed.miners.items())
    ]
