"""Checks a batch of receipts: its signature and its chain; `receipt_checks` looks at the new ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from iota.console.counts import counted
from iota.identity.signatures import signing_bytes
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import RECEIPTS_DOMAIN, Receipt, ReceiptBatch, signed_payload
from orchestrator.coordinator import Member
from orchestrator.coordinator.state import RunState
from orchestrator.intake.receipt_checks import ReceiptChecks


def new_receipts(
    run: RunState,
    member: Member,
    batch: ReceiptBatch,
    verify: Callable[[bytes, bytes, str], bool],
    at: float,
) -> tuple[Receipt, ...]:
    """The receipts of a batch that are not stored yet; none where earlier ones are missing.

    `at` is the time of arrival (Unix seconds).

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
    for before, after in pairwise(receipts):
        if after.seq != before.seq + 1 or after.previous != before.content_digest():
            raise Problem(ProblemType.BAD_RECEIPTS, f"receipt {after.seq} does not follow {before.seq}")
    fresh = receipts[max(0, member.receipts + 1 - receipts[0].seq) :]
    if fresh[0].previous != member.head:
        raise Problem(
            ProblemType.BAD_RECEIPTS,
            f"receipt {fresh[0].seq} continues another chain than the"
            f" {counted(member.receipts, 'receipt')} stored here",
            extra={"receipts": member.receipts, "head": member.head},
        )
    _check_epochs(run, member.receipt_epoch, fresh)
    checks = ReceiptChecks(run, member, at, verify)
    for receipt in fresh:
        if fault := checks.fault(receipt):
            raise Problem(ProblemType.BAD_RECEIPTS, f"receipt {receipt.seq} {fault}")
    return fresh


def _check_epochs(run: RunState, newest: int, receipts: Sequence[Receipt]) -> None:
    """Raise Problem (BAD_RECEIPTS) for a receipt of an earlier epoch than those before it.

    With overlap an epoch is merged while the next one is trained, so that it may be of the one before.
    """
    for receipt in receipts:
        if receipt.epoch < run.spec.anchor(newest):
            raise Problem(
                ProblemType.BAD_RECEIPTS,
                f"receipt {receipt.seq} is of epoch {receipt.epoch}, which the receipts before it have left",
            )
        newest = max(newest, receipt.epoch)
