"""Objects as audits read them, from a store that goes away and comes back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from iota.store import ObjectClient, ObjectMissing, StoreUnavailable
from tests.support.fault_proxies import fault_proxy, page
from tests.support.store_servers import StoreUrls, embedded
from validator.audits.patient_objects import PatientObjects


class Impatient(PatientObjects):
    patience_s = 1.0


async def test_a_store_that_is_back_soon_gives_what_was_asked_for(tmp_path: Path) -> None:
    async with embedded(tmp_path) as store, ObjectClient() as client:
        await store.put("a/first", b"content")
        signed = store.presign_get("a/first", 60.0)
        target, path = signed.split("/o/")
        async with fault_proxy(target) as proxy:
            objects = PatientObjects(StoreUrls(store), client)
            url = f"{proxy.url}/o/{path}"
            await proxy.set_fault(page(503))
            reading = asyncio.create_task(objects.get("a/first", 100, url))
            await asyncio.sleep(2.0)
            assert not reading.done()
            await proxy.set_fault(None)
            assert await reading == b"content"


async def test_a_store_that_stays_away_is_given_up_and_what_is_not_there_at_once(tmp_path: Path) -> None:
    async with embedded(tmp_path) as store, ObjectClient() as client:
        with pytest.raises(ObjectMissing):
            await PatientObjects(StoreUrls(store), client).get("a/none", 100)
        url = "http://127.0.0.1:9/o/a/first"
        with pytest.raises(StoreUnavailable):
            await Impatient(StoreUrls(store), client).get("a/first", 100, url)
