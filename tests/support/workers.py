"""Workers of owners for tests: keys from seeds, their certificates, and the requests that they send."""

from __future__ import annotations

from typing import Any

from iota.identity.certificates import certify
from iota.identity.keys import Hotkey
from iota.protocol.messages import JoinRequest
from iota.protocol.workers import Certificate
from tests.support.orchestrators import join_request

OWNER = Hotkey.from_seed(b"A" * 32)
RIVAL = Hotkey.from_seed(b"B" * 32)


def key(number: int) -> Hotkey:
    """The key of a worker."""
    return Hotkey.from_seed(number.to_bytes(32))


def certificate(run: str, worker: Hotkey, owner: Hotkey = OWNER, serial: int = 1) -> Certificate:
    return certify(owner, worker, run, serial)


def certified_join(run: str, worker: Hotkey, owner: Hotkey = OWNER, **fields: Any) -> JoinRequest:
    return join_request(certificate=certificate(run, worker, owner), **fields)
