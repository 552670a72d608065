"""Contacts of members, in memory: each publishes its own, and asks for those of others.

At 3,000 members that publish every two minutes this is 25 requests a second, each half a millisecond of CPU,
and at most 8 MB here: a contact has 0.6 kB as a rule and 2.5 kB at most. An answer has at most `MAX_CONTACTS`
of them. After a restart there are none until members publish again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from iota.http.token_buckets import TokenBuckets
from iota.identity import signatures
from iota.identity.certificates import Verify
from iota.identity.contacts import contact_fault
from iota.protocol.contacts import CONTACT_S, ContactsRequest, SignedContact
from iota.protocol.problems import Problem, ProblemType
from orchestrator.coordinator import Coordinator
from orchestrator.http.middleware import Call
from orchestrator.intake import Intake, parse

_RATE: Final = 1.0
_BURST: Final = 64.0
"""Calls of one member: a miner asks every few seconds at most."""
_CONTACTS_EACH: Final = 16
"""Contacts that are asked for as cheaply as a call: an answer of all that may be asked for has 640 kB."""
_SWEEP_S: Final = CONTACT_S
"""Pause between two looks for contacts that have expired."""


@dataclass(frozen=True, slots=True)
class _Known:
    """A member's newest contact."""

    version: int
    expires: float
    data: bytes
    """The signed contact as JSON: answers are put together of these."""


class Contacts:
    """The newest contact of each member: no more than there are members."""

    def __init__(
        self,
        coordinator: Coordinator,
        intake: Intake,
        verify: Verify = signatures.verify,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` gives Unix seconds."""
        self._coordinator, self._intake, self._verify, self._clock = coordinator, intake, verify, clock
        self._known: dict[str, _Known] = {}
        self._buckets = TokenBuckets(_RATE, _BURST)
        self._swept = 0.0

    async def contacts(self, call: Call) -> bytes:
        """POST /v1/contacts: a ContactsReply.

        Raises Problem: NOT_JOINED for who is no member or has left; FORBIDDEN for another's contact; REFUSED
            for one that nobody could use, since it is not signed, of another run, or not valid now;
            RATE_LIMITED.
        """
        self._check_present(call.hotkey)
        self._charge(call.hotkey, 1.0)
        request = parse(ContactsRequest, call.body)
        self._charge(call.hotkey, len(request.wanted) / _CONTACTS_EACH)
        now = self._clock()
        if request.contact is not None:
            self._publish(call.hotkey, request.contact, now)
        found = (self._of(hotkey, now) for hotkey in dict.fromkeys(request.wanted))
        return b'{"contacts":[' + b",".join(data for data in found if data is not None) + b"]}"

    def _charge(self, hotkey: str, count: float) -> None:
        if wait := self._buckets.take(hotkey, time.monotonic(), count):
            raise Problem(ProblemType.RATE_LIMITED, "this hotkey asks too often", retry_after=wait)

    def _check_present(self, hotkey: str) -> None:
        if self._intake.member(hotkey).left:
            raise Problem(ProblemType.NOT_JOINED, f"{hotkey} has left this run: POST /v1/join first")

    def _publish(self, hotkey: str, signed: SignedContact, now: float) -> None:
        """Take a member's own contact. One that is no newer than what is known changes nothing."""
        contact, known = signed.contact, self._known.get(hotkey)
        if contact.hotkey != hotkey:
            raise Problem(ProblemType.FORBIDDEN, f"this is the contact of {contact.hotkey}: publish your own")
        if known is not None and known.expires > now and known.version >= contact.version:
            return
        if fault := contact_fault(signed, self._coordinator.spec.id, now, self._verify):
            raise Problem(ProblemType.REFUSED, f"the contact {fault}")
        self._known[hotkey] = _Known(contact.version, contact.expires, signed.model_dump_json().encode())
        self._sweep(now)

    def _of(self, hotkey: str, now: float) -> bytes | None:
        known, member = self._known.get(hotkey), self._coordinator.members.get(hotkey)
        if known is None or member is None or known.expires <= now:
            return None
        gone = member.left or self._coordinator.state.owners.is_revoked(member.owner, hotkey)
        return None if gone else known.data

    def _sweep(self, now: float) -> None:
        """Forget what has expired, from time to time."""
        if now > self._swept + _SWEEP_S:
            self._swept = now
            self._known = {hotkey: known for hotkey, known in self._known.items() if known.expires > now}
