"""Frames by the object store: which URLs are used, and what its errors mean to a miner."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from iota.objects import FrameKey
from iota.protocol.events import Delivered, FrameReady
from iota.protocol.messages import Method
from iota.protocol.problems import Problem, ProblemType
from iota.simulate.names import fake_hotkey
from iota.store import EmbeddedStore, ObjectClient
from iota.wire.store_transport import StoreTransport
from iota.wire.transport import TransferRefused, Unreachable
from tests.support.frames import outgoing
from tests.support.store_servers import StoreUrls, embedded

RUN = "ab" * 32
FRAME = outgoing()
KEY = str(FrameKey(RUN, FRAME.notice.name))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EmbeddedStore]:
    async with embedded(tmp_path) as made:
        yield made


@pytest.fixture
async def client() -> AsyncIterator[ObjectClient]:
    async with ObjectClient() as made:
        yield made


def _announced(url: str) -> Delivered:
    event = FrameReady(notice=FRAME.notice, sender=fake_hotkey(1))
    return Delivered(seq=1, event=event, urls={KEY: url})


async def test_the_url_of_an_event_serves_one_try_and_the_next_asks_for_another(
    store: EmbeddedStore, client: ObjectClient
) -> None:
    urls = StoreUrls(store)
    transport = StoreTransport(RUN, urls, client)
    await store.put(KEY, FRAME.data)
    transport.on_event(_announced(store.presign_get(KEY, 600)))
    await transport.fetch(FRAME.notice, fake_hotkey(1))
    assert urls.asked == []
    await transport.fetch(FRAME.notice, fake_hotkey(1))
    assert urls.asked == [Method.GET]


async def test_an_expired_url_is_worth_another_try(store: EmbeddedStore, client: ObjectClient) -> None:
    urls = StoreUrls(store)
    transport = StoreTransport(RUN, urls, client)
    await store.put(KEY, FRAME.data)
    transport.on_event(_announced(store.presign_get(KEY, -10)))
    with pytest.raises(Unreachable):
        await transport.fetch(FRAME.notice, fake_hotkey(1))
    await transport.fetch(FRAME.notice, fake_hotkey(1))
    assert (await anext(transport.incoming())).data == FRAME.data


@pytest.mark.parametrize(
    ("problem", "raised"),
    [(ProblemType.LATE, TransferRefused), (ProblemType.UNAVAILABLE, Unreachable)],
)
async def test_a_refusal_of_the_orchestrator_is_final_unless_it_passes(
    store: EmbeddedStore, client: ObjectClient, problem: ProblemType, raised: type[Exception]
) -> None:
    transport = StoreTransport(RUN, StoreUrls(store, Problem(problem, "not now")), client)
    with pytest.raises(raised):
        await transport.send(FRAME, fake_hotkey(1))


async def test_a_frame_whose_key_holds_other_bytes_is_refused_at_once(
    store: EmbeddedStore, client: ObjectClient
) -> None:
    await store.put(KEY, b"x" * len(FRAME.data))
    transport = StoreTransport(RUN, StoreUrls(store), client)
    with pytest.raises(TransferRefused, match="other bytes"):
        await transport.send(FRAME, fake_hotkey(1))


async def test_a_frame_that_an_earlier_process_stored_counts_as_sent(
    store: EmbeddedStore, client: ObjectClient
) -> None:
    transport = StoreTransport(RUN, StoreUrls(store), client)
    for _ in range(2):
        await transport.send(FRAME, fake_hotkey(1))
    assert await store.get(KEY) == FRAME.data
