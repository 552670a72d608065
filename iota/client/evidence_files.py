"""Files of a node about its orchestrator: the seals that it signed, and evidence where it contradicts itself.

seals/<epoch>.json             the first seal of each epoch (`iota.protocol.seals.SignedSeal`)
evidence/<epoch>-<kind>.json   a contradiction (`iota.protocol.evidence.Evidence`)
"""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import ValidationError

from iota.client.orchestrator import UntrustedAnswer
from iota.files import write_whole
from iota.identity.signatures import signing_bytes, verify
from iota.protocol.evidence import Check, Evidence, EvidenceKind
from iota.protocol.seals import SEAL_DOMAIN, SignedSeal

log = logging.getLogger(__name__)


def signed_by(orchestrator: str) -> Check:
    """The check of statements of one orchestrator (ss58)."""

    def check(domain: str, payload: bytes, signature: str) -> bool:
        return verify(signing_bytes(domain, payload), bytes.fromhex(signature), orchestrator)

    return check


class SealBook:
    """The seals that one orchestrator has signed for one run, and the evidence against it, in a folder."""

    def __init__(self, folder: Path, run: str, orchestrator: str) -> None:
        self._folder, self.run, self.orchestrator = folder, run, orchestrator
        self.check = signed_by(orchestrator)

    def take(self, signed: SignedSeal) -> bool:
        """Keep an epoch's first seal. False for one that differs from it: both are then written as evidence.

        Raises:
            UntrustedAnswer: the orchestrator has not signed it.
            OSError: the disk is full.
        """
        epoch = signed.seal.epoch
        if not self.check(SEAL_DOMAIN, signed.payload(self.run), signed.signature):
            raise UntrustedAnswer(f"the seal of epoch {epoch} is not signed by {self.orchestrator}")
        first = self.first(epoch)
        if first is None:
            path = self._folder / "seals" / f"{epoch}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, signed.model_dump_json().encode())
        elif first.seal != signed.seal:
            self.accuse(
                Evidence(
                    kind=EvidenceKind.TWO_SEALS,
                    run=self.run,
                    orchestrator=self.orchestrator,
                    epoch=epoch,
                    seals=(first, signed),
                )
            )
            return False
        return True

    def first(self, epoch: int) -> SignedSeal | None:
        """The kept seal of an epoch; None where there is none of this run, or its file is damaged."""
        try:
            found = SignedSeal.model_validate_json((self._folder / "seals" / f"{epoch}.json").read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            log.warning("the kept seal of epoch %d is damaged and is not used: %s", epoch, error)
            return None
        return found if self.check(SEAL_DOMAIN, found.payload(self.run), found.signature) else None

    def accuse(self, evidence: Evidence) -> bool:
        """Write evidence and say so; False where a file of its epoch and kind is there already."""
        path = self._folder / "evidence" / f"{evidence.epoch}-{evidence.kind}.json"
        if path.exists():
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, evidence.model_dump_json().encode())
        log.error(
            "the orchestrator contradicts itself in epoch %d (%s): its signed statements are in %s",
            evidence.epoch, evidence.kind, path,
        )  # fmt: skip
        return True

    @property
    def accusations(self) -> int:
        """Number of evidence files."""
        return sum(1 for _ in (self._folder / "evidence").glob("*.json"))
