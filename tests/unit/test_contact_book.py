"""Contacts are looked up once, believed by their signatures alone, and published until the end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from iota.client import contact_book
from iota.client.contact_book import ContactBook
from iota.client.orchestrator import OrchestratorUnreachable
from iota.identity.contacts import sign_contact
from iota.identity.keys import Hotkey
from iota.protocol.contacts import Contact, IrohContact, SignedContact
from tests.support.peer_ends import SPEC, contact_of

ALICE, BOB, EVE = (Hotkey.from_seed(bytes([n]) * 32) for n in (1, 2, 3))


class Registry:
    """The orchestrator's side: what it answers is what a test puts there."""

    def __init__(self) -> None:
        self.contacts: dict[str, SignedContact] = {}
        self.published: list[SignedContact] = []
        self.asked: list[tuple[str, ...]] = []
        self.away = 0

    async def __call__(
        self, contact: SignedContact | None, wanted: Sequence[str]
    ) -> tuple[SignedContact, ...]:
        if self.away:
            self.away -= 1
            raise OrchestratorUnreachable("it is away")
        self.asked.append(tuple(wanted))
        if contact is not None:
            self.published.append(contact)
        return tuple(self.contacts[hotkey] for hotkey in wanted if hotkey in self.contacts)


@asynccontextmanager
async def book_of(registry: Registry, met: list[Contact] | None = None) -> AsyncIterator[ContactBook]:
    """A book at work, of a node that has joined."""
    told = [] if met is None else met
    book = ContactBook(SPEC.id, registry, lambda: contact_of(ALICE, 1), told.append)
    book.joined()
    task = asyncio.create_task(book.run())
    try:
        yield book
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_contact_is_published_and_those_of_neighbours_are_looked_up() -> None:
    registry, met = Registry(), list[Contact]()
    registry.contacts[BOB.ss58] = contact_of(BOB, 7)
    async with book_of(registry, met) as book:
        book.want([BOB.ss58])
        assert await book.wait_for(BOB.ss58, 5) == registry.contacts[BOB.ss58].contact
        book.want([BOB.ss58])
        await asyncio.sleep(0.05)
    assert [each.contact.hotkey for each in registry.published] == [ALICE.ss58]
    assert sum(BOB.ss58 in wanted for wanted in registry.asked) == 1
    assert met == [registry.contacts[BOB.ss58].contact]


async def test_nothing_is_said_before_the_node_has_joined() -> None:
    registry = Registry()
    book = ContactBook(SPEC.id, registry, lambda: contact_of(ALICE, 1))
    task = asyncio.create_task(book.run())
    book.want([BOB.ss58])
    await asyncio.sleep(0.05)
    assert not registry.asked
    task.cancel()


@pytest.mark.parametrize("case", ["unsigned", "other-run", "expired", "too-long", "unasked"])
async def test_a_contact_that_is_not_right_is_not_used_and_harms_no_other(
    case: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    registry, good = Registry(), contact_of(BOB, 7)
    bad = contact_of(EVE, 9)
    changes = {
        "expired": {"expires": time.time() - 1},
        "too-long": {"expires": time.time() + 1e6},
        "other-run": {"run": "0" * 64},
    }
    if case in changes:
        bad = sign_contact(bad.contact.model_copy(update=changes[case]), EVE)
    elif case == "unsigned":
        bad = SignedContact(contact=bad.contact, signature=good.signature)
    else:
        bad = contact_of(ALICE, 9)
    registry.contacts |= {BOB.ss58: good, EVE.ss58: bad}
    async with book_of(registry) as book:
        book.want([EVE.ss58, BOB.ss58])
        assert await book.wait_for(BOB.ss58, 5) == good.contact
        assert book.get(EVE.ss58) is None
        assert not book.knows(EVE.ss58)
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1


async def test_an_older_contact_does_not_replace_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_book, "AGAIN_S", 0.0)
    registry, newer = Registry(), contact_of(BOB, 7)
    changed = {"version": newer.contact.version - 1, "direct": ("127.0.0.1:9",)}
    older = sign_contact(newer.contact.model_copy(update=changed), BOB)
    registry.contacts[BOB.ss58] = newer
    async with book_of(registry) as book:
        book.want([BOB.ss58])
        await book.wait_for(BOB.ss58, 5)
        registry.contacts[BOB.ss58] = older
        book.doubt(BOB.ss58)
        await asyncio.sleep(0.05)
        assert book.get(BOB.ss58) == newer.contact


async def test_any_version_may_follow_once_a_contact_has_expired() -> None:
    """As with the orchestrator: a member whose clock was ahead is found again."""
    registry, ahead = Registry(), contact_of(BOB, 7).contact
    fleeting = ahead.model_copy(update={"version": 2**50, "expires": time.time() + 0.3})
    registry.contacts[BOB.ss58] = sign_contact(fleeting, BOB)
    async with book_of(registry) as book:
        book.want([BOB.ss58])
        assert await book.wait_for(BOB.ss58, 5) == fleeting
        await asyncio.sleep(0.3)
        registry.contacts[BOB.ss58] = sign_contact(ahead, BOB)
        book.doubt(BOB.ss58, 0.0)
        assert await book.wait_for(BOB.ss58, 5) == ahead


async def test_a_contact_that_changes_is_published_again_at_once() -> None:
    registry = Registry()
    async with book_of(registry) as book:
        for count in range(1, 4):
            async with asyncio.timeout(5):
                while len(registry.published) < count:  # noqa: ASYNC110 - the registry is the far side
                    await asyncio.sleep(0.01)
            book.renew()


async def test_a_member_that_no_link_reaches_is_looked_up_now_and_then() -> None:
    registry = Registry()
    async with book_of(registry) as book:
        for _ in range(20):
            book.doubt(BOB.ss58, 3600.0)
            await asyncio.sleep(0.01)
        assert sum(BOB.ss58 in wanted for wanted in registry.asked) == 1


async def test_an_orchestrator_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact_book, "AGAIN_S", 0.01)
    registry = Registry()
    registry.away, registry.contacts[BOB.ss58] = 3, contact_of(BOB, 7)
    async with book_of(registry) as book:
        book.want([BOB.ss58])
        assert await book.wait_for(BOB.ss58, 5) is not None


async def test_a_key_is_a_members_once_its_contact_is_known() -> None:
    registry = Registry()
    contact = contact_of(BOB, 7).contact.model_copy(update={"iroh": IrohContact(key="ab" * 32)})
    registry.contacts[BOB.ss58] = sign_contact(contact, BOB)
    async with book_of(registry) as book:
        assert not book.is_key("ab" * 32)
        book.want([BOB.ss58])
        await book.wait_for(BOB.ss58, 5)
        assert book.is_key("ab" * 32)
        assert not book.is_key("cd" * 32)
