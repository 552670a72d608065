"""A node asks for an object's URL once, and again when it is about to expire."""

from __future__ import annotations

import time

import pytest
from blake3 import blake3

from iota.client.run_objects import ObjectDiffers, RunObjects
from iota.protocol.frames import StoredObject
from iota.protocol.messages import ObjectReply, ObjectRequest
from iota.store.ranges import Renew
from iota.store.transfer import Data, ObjectClient

KEY = "data/manifest.json"


class Urls:
    """Gives URLs that last `lasting_s` seconds, and counts."""

    def __init__(self, lasting_s: float) -> None:
        self.lasting_s = lasting_s
        self.asked: list[ObjectRequest] = []

    async def objects(self, request: ObjectRequest) -> ObjectReply:
        self.asked.append(request)
        return ObjectReply(url=f"http://store/{len(self.asked)}", expires=time.time() + self.lasting_s)


class Store(ObjectClient):
    """Answers every read with the URL that was asked, and takes every write."""

    async def get(
        self,
        url: str,
        max_bytes: int,
        deadline_s: float,
        byte_range: tuple[int, int] | None = None,
        *,
        renew: Renew | None = None,
    ) -> bytes:
        return url.encode()

    async def put(self, url: str, data: Data, deadline_s: float) -> bool:
        return True


async def test_a_url_is_used_again_while_it_lasts() -> None:
    urls = Urls(3600.0)
    objects = RunObjects(urls, Store())
    assert await objects.get(KEY, 100) == await objects.get_range(KEY, 0, 10) == b"http://store/1"
    assert len(urls.asked) == 1


async def test_a_url_that_is_about_to_expire_is_asked_for_anew() -> None:
    urls = Urls(30.0)
    objects = RunObjects(urls, Store())
    assert [await objects.get(KEY, 100) for _ in range(2)] == [b"http://store/1", b"http://store/2"]


async def test_a_url_to_write_to_serves_one_write() -> None:
    urls = Urls(3600.0)
    objects = RunObjects(urls, Store())
    for _ in range(2):
        assert (await objects.put(KEY, b"data")).size == 4
    assert len(urls.asked) == 2


async def test_an_object_with_other_bytes_than_announced_is_refused() -> None:
    stored = StoredObject(key=KEY, digest=blake3(b"announced").hexdigest(), size=9)
    with pytest.raises(ObjectDiffers):
        await RunObjects(Urls(3600.0), Store()).get_verified(stored)
