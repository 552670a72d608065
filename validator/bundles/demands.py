"""Which audits a bundle can repeat: what the sealed record, the block's hash and the link demand."""

from __future__ import annotations

from enum import Enum

from iota.protocol.messages import AuditKind
from validator.core.merges import MergeAudits
from validator.core.sealed import SealedEpoch
from validator.core.segments import Draws
from validator.core.tasks import MERGE_AUDITS, AuditTask, drawn_tasks, records_task


class Demand(Enum):
    """What demands an audit."""

    RECORDS = "records"
    """Nothing: the records show a fault by themselves."""
    DRAW = "draw"
    OWED = "owed"
    """The draw, if its author owed the miner the audit of a segment."""


def demand_of(sealed: SealedEpoch, draws: Draws, hotkey: str, task: AuditTask) -> Demand | None:
    """What demands this audit of a miner; None if nothing does.

    None also of an audit that examined another validator's accusation, which no draw of its own demands.
    Where `draws` knows of no epochs before, a segment may count as drawn that these excuse.
    """
    if task.kind is AuditKind.RECORDS:
        return Demand.RECORDS if task == records_task(task.seq) else None
    if task.kind in MERGE_AUDITS:
        return Demand.DRAW if (hotkey, task) in _merge_tasks(sealed, draws) else None
    if task in drawn_tasks(sealed, draws, hotkey):
        return Demand.DRAW
    owed = drawn_tasks(sealed, draws, hotkey, owed=True)
    return Demand.OWED if task in owed else None


def _merge_tasks(sealed: SealedEpoch, draws: Draws) -> set[tuple[str, AuditTask]]:
    audits = MergeAudits(
        sealed, draws.block_hash, draws.link, lambda hotkey, task, result: None, lambda text: None
    )
    return {task for at in audits.parts for task in audits.tasks(at)} | set(audits.base_tasks())
