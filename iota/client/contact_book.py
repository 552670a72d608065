"""The contacts of this node's neighbours, looked up at the orchestrator, and its own, published there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from cachetools import LRUCache

from iota.client.orchestrator import OrchestratorUnreachable, UntrustedAnswer
from iota.identity.contacts import contact_fault
from iota.protocol.contacts import MAX_CONTACTS, Contact, SignedContact
from iota.protocol.problems import Problem

log = logging.getLogger(__name__)

PUBLISH_S: Final = 120.0
"""Pause between two publications: an orchestrator that has restarted knows a member again after it."""
AGAIN_S: Final = 5.0
"""Pause between two look-ups of the same member, and after a failed call."""
_MOST: Final = 1024
"""Members whose contacts are kept: many times a miner's neighbours."""


class Contacts(Protocol):
    """The call of the orchestrator (`OrchestratorClient.contacts`)."""

    async def __call__(
        self, contact: SignedContact | None, wanted: Sequence[str]
    ) -> tuple[SignedContact, ...]: ...


class ContactBook:
    """Contacts of the members of one run. `run` must go on in a task of its own."""

    def __init__(
        self,
        run: str,
        call: Contacts,
        own: Callable[[], SignedContact | None],
        on_new: Callable[[Contact], None] = lambda contact: None,
    ) -> None:
        """`own` makes this node's contact anew; None if it has none. `on_new` hears of new ways to one."""
        self._run, self._call, self._own, self._on_new = run, call, own, on_new
        self._known: LRUCache[str, Contact] = LRUCache(_MOST)
        self._wanted: dict[str, None] = {}
        """Members to look up, in order."""
        self._asked: LRUCache[str, float] = LRUCache(_MOST)
        """When a member was last looked up, in monotonic seconds."""
        self._joined = asyncio.Event()
        self._wake, self._answered = asyncio.Event(), asyncio.Event()
        self._published, self._changed = float("-inf"), True
        """When this node's contact was published last, in monotonic seconds; whether it is another by now."""
        self._told: LRUCache[str, None] = LRUCache(_MOST)
        """Members of whose contacts the log has said what is wrong."""

    def joined(self) -> None:
        """This node is a member now: it may publish and look up."""
        self._joined.set()

    async def until_joined(self) -> None:
        """Wait until this node is a member."""
        await self._joined.wait()

    def get(self, hotkey: str) -> Contact | None:
        """The member's contact, if one is known and valid."""
        found = self._known.get(hotkey)
        return found if found is not None and found.expires > time.time() else None

    def knows(self, hotkey: str) -> bool:
        """Whether the orchestrator has named this member's contact."""
        return hotkey in self._known

    def is_key(self, key: str) -> bool:
        """Whether `key` is the network key of a member whose contact is known."""
        return any(each.iroh is not None and each.iroh.key == key for each in self._known.values())

    def want(self, hotkeys: Iterable[str]) -> None:
        """Look up members whose contacts are not known, or about to expire."""
        soon = time.time() + PUBLISH_S
        for hotkey in hotkeys:
            found = self._known.get(hotkey)
            if found is None or found.expires < soon:
                self._look_up(hotkey)

    def doubt(self, hotkey: str, pause_s: float = AGAIN_S) -> None:
        """The member's contact leads nowhere: it may have a newer one. Not asked again within `pause_s`."""
        self._look_up(hotkey, pause_s)

    def renew(self) -> None:
        """This node is reached in other ways than it has published: it does so again."""
        self._changed = True
        self._wake.set()

    async def wait_for(self, hotkey: str, within_s: float) -> Contact | None:
        """The member's contact, waiting for a look-up that is under way."""
        try:
            async with asyncio.timeout(within_s):
                while self.get(hotkey) is None and hotkey in self._wanted:
                    await self._answered.wait()
        except TimeoutError:
            pass
        return self.get(hotkey)

    async def run(self) -> None:
        """Publish and look up, until cancelled. An orchestrator that is away is asked again."""
        await self._joined.wait()
        while True:
            self._wake.clear()
            due = self._changed or time.monotonic() - self._published >= PUBLISH_S
            own = self._own() if due else None
            if own is not None:
                self._published, self._changed = time.monotonic(), False
            if (own is not None or self._wanted) and not await self._exchange(own):
                self._changed |= own is not None
                await asyncio.sleep(AGAIN_S)
                continue
            if self._wanted:
                continue
            try:
                async with asyncio.timeout(max(1.0, self._published + PUBLISH_S - time.monotonic())):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _look_up(self, hotkey: str, pause_s: float = AGAIN_S) -> None:
        now = time.monotonic()
        if now - self._asked.get(hotkey, float("-inf")) >= pause_s:
            self._asked[hotkey] = now
            self._wanted[hotkey] = None
            self._wake.set()

    async def _exchange(self, own: SignedContact | None) -> bool:
        wanted = list(self._wanted)[:MAX_CONTACTS]
        try:
            found = await self._call(own, wanted)
        except (Problem, OrchestratorUnreachable, UntrustedAnswer) as error:
            log.warning("contacts could not be exchanged with the orchestrator: %s", error)
            return False
        for signed in found:
            self._take(signed, wanted)
        for hotkey in wanted:
            self._wanted.pop(hotkey, None)
        self._answered.set()
        self._answered = asyncio.Event()
        return True

    def _take(self, signed: SignedContact, wanted: list[str]) -> None:
        contact = signed.contact
        fault = contact_fault(signed, self._run, time.time())
        if contact.hotkey not in wanted:
            fault = "was not asked for"
        if fault is not None:
            if contact.hotkey not in self._told:
                self._told[contact.hotkey] = None
                log.warning("the contact of %s %s, and is not used", contact.hotkey, fault)
            return
        before = self._known.get(contact.hotkey)
        if before is None or before.version < contact.version or before.expires <= time.time():
            self._known[contact.hotkey] = contact
            if before is None or _ways(before) != _ways(contact):
                self._on_new(contact)


def _ways(contact: Contact) -> tuple[object, ...]:
    return contact.direct, contact.certificate, contact.iroh
