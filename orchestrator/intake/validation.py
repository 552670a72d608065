"""What of an exchange's news may be taken: receipts that chain, names that are the sender's own. Pure."""

from __future__ import annotations

from itertools import pairwise
from typing import Final

from iota.codec.shapes import payload_size
from iota.identity.signatures import signing_bytes, verify
from iota.objects import (
    BaseKey,
    DeltaKey,
    FrameKey,
    MergedKey,
    RunObject,
    SnapshotKey,
    max_bytes,
    part_count,
)
from iota.protocol.messages import (
    BaseStored,
    Delta,
    FrameNotice,
    Heldout,
    Merged,
    Report,
    ReportKind,
    Role,
    SnapshotStored,
    SnapshotWanted,
    StoredObject,
)
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import RECEIPTS_DOMAIN, OpKind, Receipt, ReceiptBatch, signed_payload
from iota.spec import RunSpec
from orchestrator.coordinator import Member
from orchestrator.coordinator.state import RunState

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
_LOSS_MOST: Final = 1000.0
"""Nats a token; the loss of a guess is the logarithm of the vocabulary's size."""


def new_receipts(run: RunState, member: Member, batch: ReceiptBatch) -> tuple[Receipt, ...]:
    """The receipts of a batch that are not stored yet; none where some before them are missing.

    Raises:
        Problem: BAD_RECEIPTS: not consecutive, of another chain, or such as no op of the member gives;
            BAD_SIGNATURE: not signed by the member.
    """
    receipts = batch.receipts
    if not receipts:
        return ()
    message = signing_bytes(
        RECEIPTS_DOMAIN, signed_payload(run.spec.id, member.hotkey, receipts[-1].content_digest())
    )
    if not verify(message, bytes.fromhex(batch.signature), member.hotkey):
        raise Problem(
            ProblemType.BAD_SIGNATURE, "the batch's signature is not over the last receipt's digest"
        )
    for receipt in receipts:
        if fault := _fault(run, member, receipt):
            raise Problem(ProblemType.BAD_RECEIPTS, f"receipt {receipt.seq} {fault}")
    for before, after in pairwise(receipts):
        if after.seq != before.seq + 1 or after.previous != before.content_digest():
            raise Problem(ProblemType.BAD_RECEIPTS, f"receipt {after.seq} does not follow {before.seq}")
        if after.epoch < before.epoch:
            raise _of_the_past(after)
    fresh = receipts[max(0, member.receipts + 1 - receipts[0].seq) :]
    if not fresh or fresh[0].seq > member.receipts + 1:
        return ()
    if fresh[0].previous != member.head:
        raise Problem(
            ProblemType.BAD_RECEIPTS,
            f"receipt {fresh[0].seq} continues another chain than the {member.receipts} receipts stored here",
            extra={"receipts": member.receipts, "head": member.head},
        )
    if fresh[0].epoch < max(
        (n for n, e in run.epochs.items() if member.hotkey in e.first_receipt), default=0
    ):
        raise _of_the_past(fresh[0])
    return fresh


def _fault(run: RunState, member: Member, receipt: Receipt) -> str | None:
    """Why no op of this member gives such a receipt, or None."""
    if member.role is not Role.MINER:
        return "is not from a miner: only miners run ops"
    if receipt.kind is OpKind.MERGE:
        return "is of a merge, which is checked by its copies and has no receipt"
    if receipt.stage != member.stage:
        return f"is of stage {receipt.stage}, yours is {member.stage}"
    if receipt.epoch > run.epoch:
        return f"is of epoch {receipt.epoch}, which has not begun"
    if not 0 < receipt.started <= receipt.ended:
        return "ended before it started: set the machine's clock"
    if receipt.loss is not None:
        if receipt.kind is not OpKind.LOSS or receipt.stage != run.spec.last_stage:
            return "names a loss, which only a LOSS of the last stage has"
        if not 0 <= receipt.loss <= _LOSS_MOST:
            return f"names a loss of {receipt.loss:g}: at least 0 and at most {_LOSS_MOST:g} nats a token"
    return None


def _of_the_past(receipt: Receipt) -> Problem:
    return Problem(
        ProblemType.BAD_RECEIPTS,
        f"receipt {receipt.seq} is of epoch {receipt.epoch}, which the receipts before it have left",
    )


def check_frames(spec: RunSpec, member: Member, frames: tuple[FrameNotice, ...]) -> None:
    """Raises Problem (FORBIDDEN) for a frame that is not this member's to announce."""
    for notice in frames:
        name = notice.name
        if member.role is not Role.MINER or name.stage != member.stage:
            raise Problem(ProblemType.FORBIDDEN, f"a frame of stage {name.stage} is not yours to announce")
        leaves = name.direction.destination(name.stage, spec.layout.stages) is None
        limit = max_bytes(spec, FrameKey(spec.id, name), member.stage)
        if leaves or not payload_size(spec) < notice.size <= limit:
            raise Problem(
                ProblemType.FORBIDDEN, f"no frame of this run has {notice.size} bytes and this name"
            )


def check_reports(run: RunState, member: Member, reports: tuple[Report, ...]) -> None:
    """Raises Problem (FORBIDDEN) for a report of the other role, or that names what is not its sender's."""
    for report in reports:
        if (report.kind in _OF_VALIDATORS) != (member.role is Role.VALIDATOR):
            raise Problem(ProblemType.FORBIDDEN, f"a {member.role} does not report {report.kind}")
        match report:
            case Heldout() if report.epoch > run.epoch + 1:
                raise Problem(ProblemType.FORBIDDEN, f"there is no base of epoch {report.epoch} yet")
            case SnapshotWanted() if report.epoch > run.epoch or report.version > run.spec.schedule.steps:
                raise Problem(ProblemType.FORBIDDEN, f"epoch {report.epoch} has no version {report.version}")
        stored, keys = _objects(run.spec, member, report)
        named = tuple(one.key for one in stored) == tuple(map(str, keys))
        if not named or any(
            one.size > max_bytes(run.spec, key, member.stage) for one, key in zip(stored, keys, strict=True)
        ):
            raise Problem(
                ProblemType.FORBIDDEN, f"a report of {report.kind} names each of its objects, and no others"
            )


def _objects(
    spec: RunSpec, member: Member, report: Report
) -> tuple[tuple[StoredObject, ...], tuple[RunObject, ...]]:
    """The objects that a report names, and the keys that they must have."""
    run, me, stage = spec.id, member.hotkey, member.stage
    match report:
        case Delta():
            parts = range(part_count(spec, stage))
            return report.parts, tuple(DeltaKey(run, report.epoch, stage, me, n) for n in parts)
        case BaseStored():
            parts = range(part_count(spec, stage))
            return report.parts, tuple(BaseKey(run, report.epoch, stage, n) for n in parts)
        case Merged():
            fits = report.stage <= spec.last_stage and report.part < part_count(spec, report.stage)
            key = MergedKey(run, report.epoch, report.stage, report.part, me)
            return (report.stored,), (key,) if fits else ()
        case SnapshotStored():
            return (report.stored,), (SnapshotKey(run, report.epoch, me, report.version),)
        case _:
            return (), ()
