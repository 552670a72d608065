"""Limits, long polls and presence, each by itself."""

from __future__ import annotations

import asyncio

import pytest

from iota.http.hosts import is_loopback
from iota.http.token_buckets import TokenBuckets
from iota.simulate.names import fake_hotkey
from orchestrator.coordinator import Left
from orchestrator.http.limits import ServerLimits
from orchestrator.http.long_polls import Polls, Woken
from orchestrator.http.presence import Presence

ME, OTHER = fake_hotkey(1), fake_hotkey(2)


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    buckets = TokenBuckets(rate=2.0, burst=3.0)
    assert [buckets.take(ME, 0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert buckets.take(ME, 0.5) == 0.0
    assert buckets.take(ME, 0.5) == 0.5


def test_a_bucket_never_holds_more_than_its_burst_and_is_its_owners_alone() -> None:
    buckets = TokenBuckets(rate=1.0, burst=1.0)
    assert buckets.take(ME, 0.0) == 0.0
    assert buckets.take(OTHER, 0.0) == 0.0
    assert [buckets.take(ME, 100.0) for _ in range(2)] == [0.0, 1.0]


def test_the_least_recently_used_bucket_is_forgotten() -> None:
    buckets = TokenBuckets(rate=1.0, burst=1.0, keys=2)
    for key in ("a", "b", "a", "c"):
        buckets.take(key, 0.0)
    assert buckets.take("a", 0.0) > 0
    assert buckets.take("b", 0.0) == 0.0


@pytest.mark.parametrize(
    ("peer", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::1%lo", True), ("10.0.0.1", False),
     ("", False), ("nowhere", False), (None, False)],
)  # fmt: skip
def test_only_this_machine_is_loopback(peer: str | None, loopback: bool) -> None:
    assert is_loopback(peer) is loopback


@pytest.mark.parametrize("name", ["silence_s", "wait_s"])
def test_a_server_that_waits_for_no_time_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="above 0"):
        ServerLimits(**{name: 0.0})


async def test_a_poll_is_woken_by_news_for_its_member() -> None:
    polls = Polls()
    poll = asyncio.create_task(polls.wait(ME, 10))
    await asyncio.sleep(0)
    polls.wake({OTHER})
    assert len(polls) == 1
    polls.wake({ME})
    assert await poll is Woken.EVENTS
    assert len(polls) == 0


async def test_a_newer_poll_releases_the_older_and_stays() -> None:
    polls = Polls()
    older = asyncio.create_task(polls.wait(ME, 10))
    await asyncio.sleep(0)
    newer = asyncio.create_task(polls.wait(ME, 10))
    assert await older is Woken.SUPERSEDED
    polls.wake({ME})
    assert await newer is Woken.EVENTS


async def test_a_poll_without_news_ends_in_time() -> None:
    polls = Polls()
    assert await polls.wait(ME, 0.01) is Woken.TIMEOUT
    assert len(polls) == 0


async def test_stopping_answers_every_poll_now_and_later() -> None:
    polls = Polls()
    waiting = [asyncio.create_task(polls.wait(hotkey, 10)) for hotkey in (ME, OTHER)]
    await asyncio.sleep(0)
    polls.stop()
    assert await asyncio.gather(*waiting) == [Woken.SUPERSEDED] * 2
    assert await polls.wait(ME, 10) is Woken.SUPERSEDED


def test_a_member_is_overdue_after_its_silence() -> None:
    presence = Presence(15.0)
    presence.note(ME, 100.0)
    assert not presence.overdue(ME, 115.0)
    assert presence.overdue(ME, 115.1)
    presence.note(ME, 116.0)
    assert not presence.overdue(ME, 130.0)


def test_a_member_that_this_process_never_heard_counts_from_the_first_look() -> None:
    presence = Presence(15.0)
    assert not presence.overdue(ME, 1000.0)
    assert not presence.overdue(ME, 1015.0)
    assert presence.overdue(ME, 1015.1)


def test_a_member_that_left_is_forgotten() -> None:
    presence = Presence(15.0)
    presence.note(ME, 0.0)
    presence.observe(Left(at=1.0, hotkey=ME))
    assert not presence.overdue(ME, 1000.0)
