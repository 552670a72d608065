"""Verdicts: signed, self-contained results of audits."""

from __future__ import annotations

from typing import Final

from iota.identity.keys import Hotkey
from iota.identity.signatures import signing_bytes, verify
from iota.protocol.messages import AuditKind, Outcome, Verdict

VERDICT_VERSION: Final = 1
"""The form of a verdict and of its signed bytes."""

_DOMAIN: Final = f"verdict/{VERDICT_VERSION}"


def signed_verdict(
    run: str,
    key: Hotkey,
    *,
    epoch: int,
    miner: str,
    audit: AuditKind,
    outcome: Outcome,
    seq: int,
    profile: str,
    expected: str = "",
    found: str = "",
    reason: str = "",
) -> Verdict:
    """A verdict with its signature over the run and its canonical JSON with an empty signature."""
    plain = Verdict(
        epoch=epoch,
        miner=miner,
        audit=audit,
        outcome=outcome,
        seq=seq,
        profile=profile[:200],
        expected=expected[:1000],
        found=found[:1000],
        reason=reason[:500],
    )
    return plain.model_copy(update={"signature": key.sign(_message(run, plain)).hex()})


def verify_verdict(run: str, verdict: Verdict, validator: str) -> bool:
    """Whether `validator` signed this verdict for this run."""
    plain = verdict.model_copy(update={"signature": ""})
    return verify(_message(run, plain), bytes.fromhex(verdict.signature), validator)


def _message(run: str, plain: Verdict) -> bytes:
    return signing_bytes(_DOMAIN, f"{run}\n".encode() + plain.canonical())
