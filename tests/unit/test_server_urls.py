"""Presigned URLs as they go out: one for each access, of its method, key and size, however many there are."""

from __future__ import annotations

import pytest

from iota.identity.keys import Hotkey
from iota.objects import DeltaKey
from iota.protocol.events import BaseAssign, Event, MergeReady, Plan
from iota.protocol.frames import StoredObject
from iota.protocol.messages import Method
from iota.store import EmbeddedStore
from orchestrator.http.delivery import Delivery, presign
from orchestrator.http.statements import Statements
from orchestrator.intake import Access, accesses
from tests.support.coordinators import Driven
from tests.support.orchestrators import SECRET, STORE, make_spec

SPEC = make_spec(microbatches=40)


@pytest.mark.parametrize("parts", [0, 3, 40])
async def test_each_event_goes_out_with_the_urls_of_its_objects(parts: int) -> None:
    driven = Driven.training(SPEC)
    member = driven.state.miners(0)[0]
    keys = [str(DeltaKey(SPEC.id, 0, 0, member.hotkey, n)) for n in range(parts)]
    stored = tuple(StoredObject(key=key, digest="d" * 64, size=1) for key in keys)
    events: list[tuple[int, Event]] = [
        (4, BaseAssign(epoch=1)),
        (5, MergeReady(epoch=0, stage=0, parts=stored)),
    ]
    store = EmbeddedStore(STORE, SECRET)
    try:
        first, second = await Delivery(SPEC, store, Statements(SPEC.id, Hotkey.generate()), 60.0).of(
            member, events
        )
    finally:
        await store.close()
    assert (first.seq, first.event, first.urls) == (*events[0], {})
    assert (second.seq, second.event) == events[1]
    assert list(second.urls) == keys
    assert all(key in url and "op=get" in url for key, url in second.urls.items())


async def test_a_url_is_for_the_method_that_was_granted() -> None:
    driven = Driven.training(SPEC)
    member = driven.state.miners(0)[0]
    [plan, *_] = [event for event in driven.news(member) if isinstance(event, Plan)]
    granted = accesses(SPEC, member, plan)
    assert len(granted) == SPEC.schedule.microbatches
    store = EmbeddedStore(STORE, SECRET)
    try:
        put = presign(store, granted[0], 60.0)
        get = presign(store, Access(Method.GET, granted[0].key), 60.0)
    finally:
        await store.close()
    assert "op=put" in put
    assert f"size={granted[0].size}" in put
    assert "op=get" in get
