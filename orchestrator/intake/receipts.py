"""Checks a batch of receipts: its signature, its chain, and that each receipt is possible for the member."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from iota.console.counts import counted
from iota.identity.signatures import signing_bytes
from iota.protocol.messages import Role
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import MAX_LOSS, RECEIPTS_DOMAIN, OpKind, Receipt, ReceiptBatch, signed_payload
from orchestrator.coordinator import Member
from orchestrator.coordinator.state import Phase, RunState


def new_receipts(
    run: RunState, member: Member, batch: ReceiptBatch, verify: Callable[[bytes, bytes, str], bool]
) -> tuple[Receipt, ...]:
    """The receipts of a batch that are not stored yet; none where earlier ones are missing.

    Raises:
        Problem: BAD_RECEIPTS where they are not consecutive, of another chain, or impossible for this member;
            BAD_SIGNATURE where they are not signed by it.
    """
    receipts = batch.receipts
    if not receipts or receipts[0].seq > member.receipts + 1 or receipts[-1].seq <= member.receipts:
        return ()  # before any digest: such a batch changes nothing, so it could be sent for ever
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
    if fresh[0].previous != member.head:
        raise Problem(
            ProblemType.BAD_RECEIPTS,
            f"receipt {fresh[0].seq} continues another chain than the"
            f" {counted(member.receipts, 'receipt')} stored here",
            extra={"receipts": member.receipts, "head": member.head},
        )
    if fresh[0].epoch < member.receipt_epoch:
        raise _of_the_past(fresh[0])
    return fresh


def _fault(run: RunState, member: Member, receipt: Receipt) -> str | None:
    """The reason why no op of this member can give such a receipt, or None."""
    if member.role is not Role.MINER:
        return "is not from a miner: only miners run ops"
    if receipt.kind is OpKind.MERGE:
        # Of past epochs nothing is known any more: it counts for nothing, and must not break the chain.
        at, drawn = (receipt.stage, receipt.microbatch), run.phase in (Phase.MERGING, Phase.FINISHED)
        if receipt.epoch == run.epoch and not (drawn and at in member.merging):
            return f"is of a merge of part {at[1]} of stage {at[0]}, which you were not drawn for"
    elif receipt.stage != member.stage:
        return f"is of stage {receipt.stage}, yours is {member.stage}"
    if receipt.epoch > run.epoch:
        return f"is of epoch {receipt.epoch}, which has not begun"
    if not 0 < receipt.started <= receipt.ended:
        return "ended before it started: set the machine's clock"
    if receipt.loss is not None:
        if receipt.kind is not OpKind.LOSS or receipt.stage != run.spec.last_stage:
            return "names a loss, which only a LOSS of the last stage has"
        if not 0 <= receipt.loss <= MAX_LOSS:
            return f"names a loss of {receipt.loss:g}: at least 0 and at most {MAX_LOSS:g} nats a token"
    return None


def _of_the_past(receipt: Receipt) -> Problem:
    return Problem(
        ProblemType.BAD_RECEIPTS,
        f"receipt {receipt.seq} is of epoch {receipt.epoch}, which the receipts before it have left",
    )
