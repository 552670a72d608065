"""What of an exchange's news may be taken: receipts that chain, names that are the sender's own. Pure."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from iota.protocol.keys import signing_bytes, verify
from iota.protocol.messages import (
    BaseStored,
    Delta,
    FrameNotice,
    Merged,
    Report,
    ReportKind,
    Role,
    SnapshotStored,
    StoredObject,
)
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import OpKind, Receipt, ReceiptBatch, signed_payload
from iota.spec import RunSpec
from iota.wire.frame import payload_size
from orchestrator.coordinator import Member
from orchestrator.server.rights import destination, own_size

_OF_VALIDATORS: Final = frozenset(
    {
        ReportKind.REVEAL,
        ReportKind.SNAPSHOT_WANTED,
        ReportKind.VERDICT,
        ReportKind.AUDITS_DONE,
        ReportKind.HELDOUT,
        ReportKind.WEIGHTS,
    }
)
_HEADER_MOST: Final = 4096


def new_receipts(run: str, member: Member, batch: ReceiptBatch) -> tuple[Receipt, ...]:
    """The receipts of a batch that are not stored yet; none where some before them are missing.

    Raises:
        Problem: BAD_RECEIPTS: not consecutive, of another stage, or of another chain;
            BAD_SIGNATURE: not signed by the member.
    """
    receipts = batch.receipts
    if not receipts:
        return ()
    message = signing_bytes("receipts", signed_payload(run, member.hotkey, receipts[-1].content_digest()))
    if not verify(message, bytes.fromhex(batch.signature), member.hotkey):
        raise Problem(
            ProblemType.BAD_SIGNATURE, "the batch's signature is not over the last receipt's digest"
        )
    for receipt in receipts:
        # A part of any stage may be merged by anybody.
        if receipt.stage != member.stage and receipt.kind is not OpKind.MERGE:
            raise Problem(
                ProblemType.BAD_RECEIPTS,
                f"receipt {receipt.seq} is of stage {receipt.stage}, yours is {member.stage}",
            )
    for before, after in pairwise(receipts):
        if after.seq != before.seq + 1 or after.previous != before.content_digest():
            raise Problem(ProblemType.BAD_RECEIPTS, f"receipt {after.seq} does not follow {before.seq}")
    fresh = receipts[max(0, member.receipts + 1 - receipts[0].seq) :]
    if not fresh or fresh[0].seq > member.receipts + 1:
        return ()
    if fresh[0].previous != member.head:
        raise Problem(
            ProblemType.BAD_RECEIPTS,
            f"receipt {fresh[0].seq} continues another chain than the {member.receipts} receipts stored here",
            extra={"receipts": member.receipts, "head": member.head},
        )
    return fresh


def check_frames(spec: RunSpec, member: Member, frames: tuple[FrameNotice, ...]) -> None:
    """Raises Problem (FORBIDDEN) for a frame that is not this member's to announce."""
    least = payload_size(spec)
    for notice in frames:
        name = notice.name
        if member.role is not Role.MINER or name.stage != member.stage:
            raise Problem(ProblemType.FORBIDDEN, f"a frame of stage {name.stage} is not yours to announce")
        if destination(spec, name) is None or not least < notice.size <= least + _HEADER_MOST:
            raise Problem(
                ProblemType.FORBIDDEN, f"no frame of this run has {notice.size} bytes and this name"
            )


def check_reports(spec: RunSpec, member: Member, reports: tuple[Report, ...]) -> None:
    """Raises Problem (FORBIDDEN) for a report of the other role, or one that names another's object."""
    for report in reports:
        if (report.kind in _OF_VALIDATORS) != (member.role is Role.VALIDATOR):
            raise Problem(ProblemType.FORBIDDEN, f"a {member.role} does not report {report.kind}")
        for stored, folder in _objects(spec.id, member, report):
            most = own_size(spec, member, stored.key)
            if not stored.key.startswith(folder) or most is None or stored.size > most:
                raise Problem(ProblemType.FORBIDDEN, f"{stored.key} is not what this report may name")


def _objects(run: str, member: Member, report: Report) -> list[tuple[StoredObject, str]]:
    match report:
        case Delta():
            return [(p, f"{run}/delta/{report.epoch}/") for p in report.parts]
        case BaseStored():
            return [(p, f"{run}/base/{report.epoch}/") for p in report.parts]
        case Merged():
            folder = f"{run}/merged/{report.epoch}/{report.stage}/part-{report.part:03d}."
            return [(report.stored, folder)]
        case SnapshotStored():
            key = f"{run}/audit/{report.epoch}/{member.hotkey}/{report.version}"
            return [(report.stored, key)]
        case _:
            return []
