"""Workers: keys that a hotkey certifies for one run, so that several machines can work in its name.

A hotkey that works by itself is its own worker and has no certificate. `iota.identity.certificates` signs and
verifies these documents.
"""

from __future__ import annotations

from typing import Final

from iota.protocol.fields import Hotkey, Signature
from iota.spec import Count, Frozen, Hex32

WORKER_VERSION: Final = 1
"""Version of the form of a certificate, of a revocation, and of their signed bytes."""
CERTIFICATE_DOMAIN: Final = f"worker/{WORKER_VERSION}"
REVOCATION_DOMAIN: Final = f"revoke/{WORKER_VERSION}"


class Certificate(Frozen):
    """Says that `worker` works for `owner` in one run. Both keys sign it.

    Without the worker's signature an owner could certify another's key, and claim the pay for its work.
    """

    run: Hex32
    owner: Hotkey
    """The subnet's hotkey that is paid for the work, and banned for it."""
    worker: Hotkey
    """The key that signs requests, receipts and frames."""
    serial: Count
    """Unix milliseconds at which it was made. It tells an owner's certificates apart, and decides nothing."""
    signature: Signature
    """The owner's (domain `CERTIFICATE_DOMAIN`)."""
    consent: Signature
    """The worker's, over the same bytes."""


class Revocation(Frozen):
    """Says that `worker` does not work for `owner` any more in this run. It cannot be taken back."""

    run: Hex32
    owner: Hotkey
    worker: Hotkey
    signature: Signature
    """The owner's (domain `REVOCATION_DOMAIN`)."""


class RevokeReply(Frozen):
    """The answer to `POST /v1/revoke`, whose body is the `Revocation`."""

    joined: bool
    """Whether the worker had joined the run."""


def certificate_payload(run: str, owner: str, worker: str, serial: int) -> bytes:
    """The payload of both signatures of a certificate."""
    return f"{run}\n{owner}\n{worker}\n{serial}".encode()


def revocation_payload(run: str, owner: str, worker: str) -> bytes:
    """The payload of a revocation's signature."""
    return f"{run}\n{owner}\n{worker}".encode()
