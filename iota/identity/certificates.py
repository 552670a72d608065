"""Signs and verifies certificates of workers, and their revocations. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from iota.identity import signatures
from iota.identity.signatures import signing_bytes
from iota.protocol.workers import (
    CERTIFICATE_DOMAIN,
    REVOCATION_DOMAIN,
    Certificate,
    Revocation,
    certificate_payload,
    revocation_payload,
)

Verify = Callable[[bytes, bytes, str], bool]
"""`verify(message, signature, hotkey)`; a simulation may accept all."""


class Signer(Protocol):
    """A private key (`iota.identity.keys.Hotkey`), without the files that it comes from."""

    @property
    def ss58(self) -> str:
        """Its public address."""

    def sign(self, message: bytes) -> bytes:
        """Its signature over `message`."""


def certify(owner: Signer, worker: Signer, run: str, serial: int) -> Certificate:
    """The certificate that makes `worker` a worker of `owner` in `run`."""
    message = signing_bytes(CERTIFICATE_DOMAIN, certificate_payload(run, owner.ss58, worker.ss58, serial))
    return Certificate(
        run=run,
        owner=owner.ss58,
        worker=worker.ss58,
        serial=serial,
        signature=owner.sign(message).hex(),
        consent=worker.sign(message).hex(),
    )


def certificate_fault(
    certificate: Certificate, run: str, worker: str, verify: Verify = signatures.verify
) -> str | None:
    """Why the certificate does not give `worker` an owner in `run`, to follow its name; None if it does.

    The cost is that of two signatures.
    """
    owner = certificate.owner
    if certificate.run != run:
        return (
            f"is of run {certificate.run[:12]}, and this is run {run[:12]}: make one for this run with"
            " `iota-miner certify`"
        )
    if certificate.worker != worker:
        return f"is that of the key {certificate.worker}, and not of {worker}"
    if owner == worker:
        return "has one key as owner and worker: a hotkey that works by itself needs no certificate"
    payload = certificate_payload(run, owner, worker, certificate.serial)
    message = signing_bytes(CERTIFICATE_DOMAIN, payload)
    if not verify(message, bytes.fromhex(certificate.signature), owner):
        return f"is not signed by {owner}, whom it names as the owner"
    if not verify(message, bytes.fromhex(certificate.consent), worker):
        return f"is not signed by the worker {worker}"
    return None


def revoke(owner: Signer, worker: str, run: str) -> Revocation:
    """The revocation of a worker (ss58 address) by its owner."""
    message = signing_bytes(REVOCATION_DOMAIN, revocation_payload(run, owner.ss58, worker))
    return Revocation(run=run, owner=owner.ss58, worker=worker, signature=owner.sign(message).hex())


def is_signed(revocation: Revocation, verify: Verify = signatures.verify) -> bool:
    """Whether a revocation is signed by the owner that it names."""
    payload = revocation_payload(revocation.run, revocation.owner, revocation.worker)
    message = signing_bytes(REVOCATION_DOMAIN, payload)
    return verify(message, bytes.fromhex(revocation.signature), revocation.owner)
