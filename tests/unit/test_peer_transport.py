"""Frames between peers go straight to their receiver, by the store where that fails, and are never lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from iota.identity.signatures import signing_bytes, verify
from iota.protocol.frames import KEPT_DOMAIN, FrameName, kept_statement
from iota.wire.expectation import Expectation
from iota.wire.link import LinkKind
from tests.support.frames import frame_name
from tests.support.peer_ends import SPEC, End, contact_of, open_end, signed_frame

Shelf = dict[FrameName, bytes]


@asynccontextmanager
async def two_ends() -> AsyncIterator[tuple[End, End, Shelf]]:
    shelf: Shelf = {}
    async with open_end(1, shelf) as alice, open_end(2, shelf) as bob:
        alice.knows(bob)
        bob.knows(alice)
        yield alice, bob, shelf


async def test_a_frame_goes_to_its_receiver_which_signs_for_it() -> None:
    async with two_ends() as (alice, bob, shelf):
        frame = signed_frame(frame_name(), alice.hotkey, bob.hotkey)
        notice = await alice.transport.send(frame, bob.hotkey.ss58)
        assert bob.kept == {frame.notice.name: frame.data}
        assert not shelf
        assert notice.kept is not None
        assert notice.kept.receiver == bob.hotkey.ss58
        statement = signing_bytes(
            KEPT_DOMAIN, kept_statement(SPEC.id, frame.notice.name, frame.notice.digest)
        )
        assert verify(statement, bytes.fromhex(notice.kept.signature), bob.hotkey.ss58)


async def test_a_frame_that_was_kept_is_acknowledged_again_and_not_read_again() -> None:
    async with two_ends() as (alice, bob, _):
        frame = signed_frame(frame_name(), alice.hotkey, bob.hotkey)
        first = await alice.transport.send(frame, bob.hotkey.ss58)
        bob.kept.clear()
        bob.expects = lambda header: Expectation.OVER
        assert await alice.transport.send(frame, bob.hotkey.ss58) == first
        assert not bob.kept


async def test_a_receiver_that_is_away_gets_its_frame_by_the_store() -> None:
    async with two_ends() as (alice, bob, shelf):
        alice.book.contacts[bob.hotkey.ss58] = contact_of(bob.hotkey, 9).contact
        frame = signed_frame(frame_name(), alice.hotkey, bob.hotkey)
        assert await alice.transport.send(frame, bob.hotkey.ss58) == frame.notice
        assert shelf == {frame.notice.name: frame.data}
        assert alice.book.doubted == [bob.hotkey.ss58]


async def test_a_receiver_without_a_contact_gets_its_frame_by_the_store() -> None:
    async with two_ends() as (alice, bob, shelf):
        alice.book.contacts.clear()
        frame = signed_frame(frame_name(), alice.hotkey, bob.hotkey)
        assert await alice.transport.send(frame, bob.hotkey.ss58) == frame.notice
        assert list(shelf) == [frame.notice.name]


async def test_a_frame_that_comes_before_its_plan_waits_for_it() -> None:
    async with two_ends() as (alice, bob, shelf):
        bob.expects = lambda header: Expectation.EARLY
        frame = signed_frame(frame_name(), alice.hotkey, bob.hotkey)
        sending = asyncio.create_task(alice.transport.send(frame, bob.hotkey.ss58))
        await asyncio.sleep(0.1)
        assert not bob.kept
        bob.expects = lambda header: Expectation.EXPECTED
        bob.transport.expectations_changed()
        assert (await sending).kept is not None
        assert not shelf


@pytest.mark.parametrize("found", [Expectation.WRONG, Expectation.OVER])
async def test_a_frame_that_is_not_expected_is_not_read_and_goes_to_the_store(found: Expectation) -> None:
    async with two_ends() as (alice, bob, shelf):
        bob.expects = lambda header: found
        frame = signed_frame(frame_name(), alice.hotkey, bob.hotkey)
        assert await alice.transport.send(frame, bob.hotkey.ss58) == frame.notice
        assert list(shelf) == [frame.notice.name]
        assert not bob.kept


async def test_another_frame_under_a_name_that_was_kept_is_refused() -> None:
    async with two_ends() as (alice, bob, shelf):
        for fill in (1, 2):
            await alice.transport.send(
                signed_frame(frame_name(), alice.hotkey, bob.hotkey, fill), bob.hotkey.ss58
            )
        assert bob.kept == {frame_name(): signed_frame_bytes(bob, 1)}
        assert list(shelf) == [frame_name()]


def signed_frame_bytes(end: End, fill: int) -> bytes:
    (data,) = end.kept.values()
    assert data[-1] == fill
    return data


async def test_the_log_names_a_trouble_with_a_peer_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with two_ends() as (alice, bob, shelf):
        alice.book.contacts[bob.hotkey.ss58] = contact_of(bob.hotkey, 9).contact
        for number in range(5):
            frame = signed_frame(frame_name(microbatch=number), alice.hotkey, bob.hotkey)
            await alice.transport.send(frame, bob.hotkey.ss58)
        assert len(shelf) == 5
    assert len([r for r in caplog.records if bob.hotkey.ss58 in r.getMessage()]) == 1


async def test_an_acknowledgement_of_another_key_counts_for_nothing() -> None:
    """A peer that answers for somebody else: the frame goes to the store."""
    async with two_ends() as (alice, bob, shelf):
        claimed = alice.book.contacts[bob.hotkey.ss58].model_copy(update={"hotkey": alice.hotkey.ss58})
        alice.book.contacts[alice.hotkey.ss58] = claimed
        frame = signed_frame(frame_name(), alice.hotkey, alice.hotkey)
        assert await alice.transport.send(frame, alice.hotkey.ss58) == frame.notice
        assert list(shelf) == [frame.notice.name]
        assert alice.chooser.summary(alice.hotkey.ss58)[LinkKind.DIRECT].failure_rate > 0


async def test_a_frame_goes_over_tls_to_the_certificate_that_the_contact_names_alone() -> None:
    shelf: Shelf = {}
    async with open_end(1, shelf) as alice, open_end(2, shelf, tls=True) as bob:
        alice.knows(bob)
        frames = [signed_frame(frame_name(microbatch=n), alice.hotkey, bob.hotkey) for n in range(2)]
        assert (await alice.transport.send(frames[0], bob.hotkey.ss58)).kept is not None
        other = alice.book.contacts[bob.hotkey.ss58].model_copy(update={"certificate": "ab" * 32})
        alice.book.contacts[bob.hotkey.ss58] = other
        await alice.forget_connections()
        assert (await alice.transport.send(frames[1], bob.hotkey.ss58)).kept is None
        assert list(shelf) == [frames[1].notice.name]
