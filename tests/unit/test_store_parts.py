"""Large objects are stored in parts by presigned URLs, and made whole by who has credentials."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator

import pytest

from iota.client.run_objects import RunObjects
from iota.protocol.messages import Method, ObjectReply, ObjectRequest
from iota.protocol.problems import Problem, ProblemType
from iota.store import ObjectClient, ObjectExists, ObjectMissing, StoreError, StoreUnavailable
from iota.store.part_urls import MAX_PARTS, PartUrls, part_bytes, part_sizes
from iota.store.s3 import S3Store
from iota.store.s3_modes import AWS
from iota.store.store import MAX_OBJECT
from orchestrator.http.object_replies import reply_to
from orchestrator.intake import Access
from tests.support.odd_s3 import ODD_MODES, Oddities, OddS3, credentials, odd_s3
from tests.support.store_servers import StoreUrls, moto_s3

MIB = 1 << 20
DATA = random.Random(7).randbytes(5 * MIB + 77)
KEY = "f/1"
WHOLE = f"/bucket/runs/one/{KEY}"
LIFE_S = 60.0


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of one MiB."""
    monkeypatch.setattr("iota.store.part_urls.PART", MIB)


@pytest.fixture(params=[True, False], ids=["conditions", "odd"])
async def odd(request: pytest.FixtureRequest) -> AsyncIterator[tuple[OddS3, S3Store, ObjectClient]]:
    """A service, a store in its modes, and who has URLs."""
    oddities = Oddities(conditions=True, needs_md5=False) if request.param else Oddities()
    with credentials():
        async with odd_s3(oddities) as (service, _), ObjectClient() as client:
            store = service.store(AWS if request.param else ODD_MODES)
            yield service, store, client
            await store.close()


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with moto_s3("bucket") as url:
        yield url


@pytest.mark.parametrize("size", [1, MIB, MIB + 1, 300 * MIB + 5, MAX_OBJECT])
def test_parts_are_at_most_256_and_make_the_whole(size: int) -> None:
    sizes = part_sizes(size)
    assert sum(sizes) == size
    assert len(sizes) <= MAX_PARTS
    assert set(sizes[:-1]) <= {part_bytes(size)}
    assert part_bytes(size) % MIB == 0


async def test_a_node_stores_a_large_object_in_parts(odd: tuple[OddS3, S3Store, ObjectClient]) -> None:
    service, store, client = odd
    stored = await RunObjects(StoreUrls(store), client).put(KEY, DATA)
    assert stored.size == len(DATA)
    assert service.objects == {f"runs/one/{KEY}": DATA}
    assert service.uploads == {}
    assert service.seen.count(f"PUT {WHOLE}") == 6
    assert await store.size(KEY) == len(DATA)


async def test_who_has_credentials_does_the_same(odd: tuple[OddS3, S3Store, ObjectClient]) -> None:
    service, store, _ = odd
    for _ in range(2):
        await store.put(KEY, DATA)
    assert service.objects == {f"runs/one/{KEY}": DATA}
    with pytest.raises(ObjectExists):
        await store.put(KEY, DATA[::-1])
    assert service.objects == {f"runs/one/{KEY}": DATA}


async def test_moto_takes_parts(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iota.store.part_urls.PART", 5 * MIB)
    store = S3Store("bucket", s3_url, "us-east-1", "parts")
    async with ObjectClient() as client:
        await RunObjects(StoreUrls(store), client).put(KEY, DATA)
        await RunObjects(StoreUrls(store), client).put(KEY, DATA)
        with pytest.raises(ObjectExists):
            await RunObjects(StoreUrls(store), client).put(KEY, DATA[::-1])
    assert await store.get(KEY) == DATA
    await store.close()


async def test_an_object_that_is_there_is_not_overwritten_by_parts(
    odd: tuple[OddS3, S3Store, ObjectClient],
) -> None:
    service, store, client = odd
    service.objects[f"runs/one/{KEY}"] = DATA[::-1]
    with pytest.raises(ObjectExists):
        await RunObjects(StoreUrls(store), client).put(KEY, DATA)
    assert service.objects == {f"runs/one/{KEY}": DATA[::-1]}
    assert service.uploads == {}, "what was sent is not kept"


async def test_parts_that_were_sent_are_not_changed_once_the_object_is_whole(
    odd: tuple[OddS3, S3Store, ObjectClient],
) -> None:
    """The holder of URLs of parts can write to nothing any more."""
    _, store, client = odd
    parts = await store.begin_parts(KEY, len(DATA), LIFE_S)
    await client.put_parts(parts, DATA, LIFE_S, never)
    assert await store.end_parts(KEY, len(DATA), parts.upload)
    with pytest.raises(ObjectMissing):
        await client.put(parts.urls[0], DATA[1 : MIB + 1], LIFE_S)
    assert await store.get(KEY) == DATA


async def test_asking_again_gives_the_same_upload_and_what_is_there_counts(
    odd: tuple[OddS3, S3Store, ObjectClient],
) -> None:
    _, store, client = odd
    first = await store.begin_parts(KEY, len(DATA), LIFE_S)
    await client.put(first.urls[0], DATA[:MIB], LIFE_S)
    again = await store.begin_parts(KEY, len(DATA), LIFE_S)
    assert again.upload == first.upload
    for url, start in zip(again.urls[1:], range(MIB, len(DATA), MIB), strict=True):
        await client.put(url, DATA[start : start + MIB], LIFE_S)
    for _ in range(2):  # an answer may be lost
        assert await store.end_parts(KEY, len(DATA), again.upload)
    assert await store.get(KEY) == DATA


async def test_an_upload_that_is_not_whole_makes_no_object(odd: tuple[OddS3, S3Store, ObjectClient]) -> None:
    service, store, client = odd
    parts = await store.begin_parts(KEY, len(DATA), LIFE_S)
    await client.put(parts.urls[0], DATA[:MIB], LIFE_S)
    for size in (len(DATA), MIB + 1):
        with pytest.raises(StoreError, match="are not the parts of an object"):
            await store.end_parts(KEY, size, parts.upload)
    with pytest.raises(ObjectMissing):
        await store.end_parts(KEY, len(DATA), "upload-77")
    assert service.objects == {}


async def test_a_part_of_another_size_is_refused(odd: tuple[OddS3, S3Store, ObjectClient]) -> None:
    _, store, client = odd
    parts = await store.begin_parts(KEY, len(DATA), LIFE_S)
    for size in (MIB - 1, MIB + 1):
        with pytest.raises(StoreError):
            await client.put(parts.urls[0], DATA[:size], LIFE_S)


async def test_what_was_not_completed_goes_with_its_folder(odd: tuple[OddS3, S3Store, ObjectClient]) -> None:
    service, store, client = odd
    parts = await store.begin_parts(KEY, len(DATA), LIFE_S)
    await client.put(parts.urls[0], DATA[:MIB], LIFE_S)
    await store.delete_prefix("f")
    assert service.uploads == {}


async def test_urls_that_expire_are_asked_for_anew_and_no_part_is_sent_twice(
    odd: tuple[OddS3, S3Store, ObjectClient],
) -> None:
    service, store, client = odd
    parts = await store.begin_parts(KEY, len(DATA), LIFE_S)
    forged = PartUrls(parts.upload, parts.part_bytes, (*parts.urls[:2], *(u + "0" for u in parts.urls[2:])))
    asked: list[int] = []

    async def renew() -> PartUrls:
        asked.append(1)
        return await store.begin_parts(KEY, len(DATA), LIFE_S)

    upload = await client.put_parts(forged, DATA, LIFE_S, renew)
    assert await store.end_parts(KEY, len(DATA), upload)
    assert service.objects == {f"runs/one/{KEY}": DATA}
    assert len(asked) == 1


async def test_an_orchestrator_tells_a_store_that_is_away_from_an_upload_that_is_none(
    odd: tuple[OddS3, S3Store, ObjectClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, store, _ = odd
    access = Access(Method.PUT, KEY, len(DATA))
    with pytest.raises(Problem) as refused:
        await reply_to(store, access, "upload-77", LIFE_S)
    assert refused.value.type is ProblemType.REFUSED

    async def away(*_: object) -> PartUrls:
        raise StoreUnavailable("away")

    monkeypatch.setattr(store, "begin_parts", away)
    with pytest.raises(Problem) as unavailable:
        await reply_to(store, access, "", LIFE_S)
    assert unavailable.value.type is ProblemType.UNAVAILABLE


async def test_an_object_that_is_being_made_is_not_there_yet(
    odd: tuple[OddS3, S3Store, ObjectClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its maker could have another object looked at, and overwrite it."""
    service, store, client = odd
    parts = await store.begin_parts(KEY, len(DATA), LIFE_S)
    await client.put_parts(parts, DATA, LIFE_S, never)
    looked, go_on, real = asyncio.Event(), asyncio.Event(), store._end_parts

    async def slow(*given: object) -> object:
        looked.set()
        await go_on.wait()
        return await real(*given)

    monkeypatch.setattr(store, "_end_parts", slow)
    ending = asyncio.create_task(store.end_parts(KEY, len(DATA), parts.upload))
    await looked.wait()
    service.objects[f"runs/one/{KEY}"] = b"another"
    assert await store.size(KEY) is None
    go_on.set()
    assert not await ending
    assert await store.size(KEY) == len(b"another")


async def test_an_upload_that_is_dropped_leaves_others_alone(
    odd: tuple[OddS3, S3Store, ObjectClient],
) -> None:
    """Also those of keys that begin like its own."""
    service, store, client = odd
    longer = await store.begin_parts(f"{KEY}0", len(DATA), LIFE_S)
    service.objects[f"runs/one/{KEY}"] = b"another"
    parts = await store.begin_parts(KEY, len(DATA), LIFE_S)
    await client.put_parts(parts, DATA, LIFE_S, never)
    assert not await store.end_parts(KEY, len(DATA), parts.upload)
    assert list(service.uploads) == [longer.upload]


async def test_a_completion_whose_memory_was_lost_has_the_node_compare(
    odd: tuple[OddS3, S3Store, ObjectClient],
) -> None:
    service, store, client = odd
    parts = await store.begin_parts(KEY, len(DATA), LIFE_S)
    await client.put_parts(parts, DATA, LIFE_S, never)
    assert await store.end_parts(KEY, len(DATA), parts.upload)
    restarted = service.store(store.modes)
    assert not await restarted.end_parts(KEY, len(DATA), parts.upload)
    await restarted.close()


async def test_a_small_object_has_one_url(odd: tuple[OddS3, S3Store, ObjectClient]) -> None:
    _, store, _ = odd
    reply = await reply_to(store, Access(Method.PUT, KEY, MIB), "", LIFE_S)
    assert reply.parts is None
    assert reply.url


class ShortUrls:
    """An orchestrator whose first answer has URLs that are worth nothing."""

    def __init__(self, store: S3Store) -> None:
        self._urls, self.asked = StoreUrls(store), 0

    async def objects(self, request: ObjectRequest) -> ObjectReply:
        self.asked += 1
        reply = await self._urls.objects(request)
        if self.asked > 1 or reply.parts is None:
            return reply
        bad = reply.parts.model_copy(update={"urls": tuple(url + "0" for url in reply.parts.urls)})
        return reply.model_copy(update={"parts": bad})


async def test_a_node_whose_urls_have_expired_asks_once(odd: tuple[OddS3, S3Store, ObjectClient]) -> None:
    service, store, client = odd
    urls = ShortUrls(store)
    await RunObjects(urls, client).put(KEY, DATA)
    assert service.objects == {f"runs/one/{KEY}": DATA}
    assert urls.asked == 3, "parts, parts again, and the completion"


async def never() -> PartUrls:
    raise AssertionError("no URL has expired")
