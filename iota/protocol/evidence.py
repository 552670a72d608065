"""Evidence against an orchestrator: signed statements that contradict each other, in one file.

Anyone can check a file without asking anybody: it holds the statements with their signatures, and `fault`
says whether they prove what the file is about.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from itertools import pairwise
from typing import Final, Literal

from pydantic import Field

from iota.protocol.events import Acknowledgement
from iota.protocol.merkle import merkle_root
from iota.protocol.messages import Hotkey
from iota.protocol.plans import PLAN_DOMAIN
from iota.protocol.receipts import Receipt
from iota.protocol.seals import (
    ACKNOWLEDGEMENT_DOMAIN,
    SEAL_DOMAIN,
    STEP_DOMAIN,
    SealedPart,
    SignedClose,
    SignedRoot,
    SignedSeal,
    acknowledgement_payload,
)
from iota.spec import Frozen, Hex32, Small

EVIDENCE_VERSION: Final = 1
"""Version of the form of an evidence file."""
MAX_EVIDENCE_RECEIPTS: Final = 1 << 20
"""Receipts in one file: above those of a miner in any epoch."""
Check = Callable[[str, bytes, str], bool]
"""(domain, payload, signature in hex) -> whether the orchestrator signed it."""


class EvidenceKind(StrEnum):
    """What the orchestrator did."""

    TWO_SEALS = "two-seals"
    """It signed two seals of one epoch."""
    TWO_PLANS = "two-plans"
    """It signed a plan's root for a miner, and sealed another one for the step."""
    OTHER_COUNTED = "other-counted"
    """It signed a counted list for a miner, and sealed another one."""
    LEFT_OUT = "left-out"
    """It acknowledged receipts before the seal, and the seal is not over all of them."""


class Evidence(Frozen):
    """One contradiction. Fields that its kind does not need are empty."""

    version: Literal[1] = EVIDENCE_VERSION
    kind: EvidenceKind
    run: Hex32
    orchestrator: Hotkey
    """Who signed the statements."""
    epoch: Small
    seals: tuple[SignedSeal, ...] = Field(min_length=1, max_length=2)
    part: SealedPart | None = None
    """The miner's part under the (first) seal."""
    root: SignedRoot | None = None
    close: SignedClose | None = None
    acknowledged: Acknowledgement | None = None
    receipts: tuple[Receipt, ...] = Field((), max_length=MAX_EVIDENCE_RECEIPTS)
    """The miner's receipts from its first of the epoch up to the acknowledged one."""


def fault(evidence: Evidence, check: Check) -> str | None:
    """Why the evidence does not prove what it is about; None where it does."""
    run, (first, *others) = evidence.run, evidence.seals
    for signed in evidence.seals:
        if signed.seal.epoch != evidence.epoch or not check(
            SEAL_DOMAIN, signed.payload(run), signed.signature
        ):
            return "a seal is of another epoch, or not signed by the orchestrator"
    if evidence.kind is EvidenceKind.TWO_SEALS:
        return None if [s for s in others if s.seal != first.seal] else "it has no two different seals"
    part = evidence.part
    if part is None or not part.is_of(first.seal):
        return "the miner's part is missing, or not under the seal"
    match evidence.kind:
        case EvidenceKind.TWO_PLANS:
            root = evidence.root
            if root is None or not check(PLAN_DOMAIN, root.payload(run), root.signature):
                return "the plan's root is missing, or not signed by the orchestrator"
            return _differs(root.epoch, evidence.epoch, root.step, root.root, part.part.plans)
        case EvidenceKind.OTHER_COUNTED:
            close = evidence.close
            if close is None or not check(STEP_DOMAIN, close.payload(run), close.signature):
                return "the step's close is missing, or not signed by the orchestrator"
            if close.hotkey != part.part.miner.hotkey:
                return "the step's close was told to another miner"
            return _differs(close.epoch, evidence.epoch, close.step, close.counted, part.part.counted)
        case _:
            return _left_out_fault(evidence, part, check)


def _differs(epoch: int, sealed_epoch: int, step: int, told: str, sealed: tuple[str, ...]) -> str | None:
    if epoch != sealed_epoch or step >= len(sealed):
        return "the statements are not of one step"
    return "the statements agree" if sealed[step] == told else None


def _left_out_fault(evidence: Evidence, part: SealedPart, check: Check) -> str | None:
    said, miner, receipts = evidence.acknowledged, part.part.miner, evidence.receipts
    if said is None or not receipts:
        return "there is no acknowledgement, or no receipt"
    payload = acknowledgement_payload(evidence.run, miner.hotkey, said)
    if not check(ACKNOWLEDGEMENT_DOMAIN, payload, said.signature):
        return "the acknowledgement is not signed by the orchestrator"
    digests = [receipt.content_digest() for receipt in receipts]
    chained = all(
        b.seq == a.seq + 1 and b.previous == digest
        for (a, b), digest in zip(pairwise(receipts), digests, strict=False)
    )
    if not chained or (receipts[-1].seq, digests[-1]) != (said.receipts, said.head):
        return "the receipts are not a chain that ends where the acknowledgement does"
    if said.sealed > evidence.epoch:
        return "the epoch was sealed when the acknowledgement was given"
    return "the seal is over all of these receipts" if covers(part, receipts) else None


def covers(part: SealedPart, receipts: tuple[Receipt, ...]) -> bool:
    """Whether a sealed part is over all of these chained receipts that are of its epoch.

    They begin with the miner's first receipt of the epoch; the seal may be over later ones too, whose digests
    are not known here: its root is compared where it is over none.
    """
    miner = part.part.miner
    own = [receipt for receipt in receipts if receipt.epoch == part.part.epoch]
    if not own:
        return True
    if not miner.first_receipt <= own[0].seq <= own[-1].seq <= miner.last_receipt:
        return False
    if (miner.first_receipt, miner.last_receipt) != (own[0].seq, own[-1].seq):
        return True
    return merkle_root([receipt.content_digest() for receipt in own]) == miner.receipts
