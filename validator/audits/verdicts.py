"""Signs and verifies verdicts: self-contained results of audits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from iota.console.redaction import one_line, printable
from iota.identity.keys import Hotkey
from iota.identity.signatures import signing_bytes, verify
from iota.protocol.messages import Outcome, Verdict
from validator.core.effects import FileVerdict

VERDICT_VERSION: Final = 2
"""The form of a verdict and of its signed bytes."""

_DOMAIN: Final = f"verdict/{VERDICT_VERSION}"


@dataclass(frozen=True)
class VerdictSigner:
    """Signs the verdicts of one validator in one run."""

    run: str
    key: Hotkey

    def __call__(self, filed: FileVerdict) -> Verdict:
        """The signed verdict of an audit, its texts made printable and cut to the protocol's limits.

        The signature covers the run's id and the canonical JSON of the verdict with an empty signature.
        """
        result = filed.result
        plain = Verdict(
            epoch=filed.epoch,
            miner=filed.miner,
            audit=filed.task.kind,
            outcome=result.outcome,
            seq=filed.task.seq,
            failed_seq=result.seq if result.outcome is Outcome.FAIL else None,
            profile=printable(result.profile[:200]),
            expected=printable(result.expected[:1000]),
            found=printable(result.found[:1000]),
            # A reason may quote a server's answer, whose bytes need not be text that JSON can hold.
            reason=one_line(result.reason[:500])[:500],
        )
        return plain.model_copy(update={"signature": self.key.sign(_message(self.run, plain)).hex()})


def verify_verdict(run: str, verdict: Verdict, validator: str) -> bool:
    """Whether `validator` signed this verdict for this run."""
    plain = verdict.model_copy(update={"signature": ""})
    return verify(_message(run, plain), bytes.fromhex(verdict.signature), validator)


def _message(run: str, plain: Verdict) -> bytes:
    return signing_bytes(_DOMAIN, f"{run}\n".encode() + plain.canonical())
