"""What every object store does, checked on each over real HTTP: the embedded server, moto's S3, an odd S3."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from blake3 import blake3

from iota.client.run_objects import RunObjects
from iota.store import (
    ObjectClient,
    ObjectExists,
    ObjectInfo,
    ObjectMissing,
    ObjectStore,
    ObjectTooLarge,
    UrlRefused,
)
from iota.store.s3 import S3Store
from tests.support.odd_s3 import ODD_MODES, credentials, odd_s3
from tests.support.store_servers import StoreUrls, embedded, moto_s3


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with moto_s3("bucket") as url:
        yield url


@asynccontextmanager
async def opened(kind: str, request: pytest.FixtureRequest, root: Path) -> AsyncIterator[ObjectStore]:
    async with AsyncExitStack() as stack:
        if kind == "embedded":
            yield await stack.enter_async_context(embedded(root))
            return
        if kind == "odd s3":
            stack.enter_context(credentials())
            service, _ = await stack.enter_async_context(odd_s3())
            store = service.store(ODD_MODES)
        else:
            url = request.getfixturevalue("s3_url")
            store = S3Store("bucket", url, "us-east-1", f"{uuid.uuid4().hex}/sub")
        stack.push_async_callback(store.close)
        yield store


@pytest.fixture(params=["embedded", "s3", "odd s3"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    async with opened(request.param, request, tmp_path) as made:
        yield made


@pytest.fixture(params=["embedded", "s3"])
async def conditional(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    """A store that tells who uploads that there is an object already."""
    async with opened(request.param, request, tmp_path) as made:
        yield made


@pytest.fixture
async def client() -> AsyncIterator[ObjectClient]:
    async with ObjectClient() as opened:
        yield opened


async def test_an_object_is_read_back_as_it_was_put(store: ObjectStore) -> None:
    data = bytes(range(256)) * 20_000
    await store.put("run/base/0/part-000", data)
    assert await store.get("run/base/0/part-000") == data


async def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    await store.put("a/empty", b"")
    assert await store.get("a/empty") == b""
    assert await store.size("a/empty") == 0


async def test_putting_the_same_bytes_again_changes_nothing(store: ObjectStore) -> None:
    await store.put("a/b", b"same")
    await store.put("a/b", b"same")
    assert await store.get("a/b") == b"same"


async def test_putting_other_bytes_is_refused_and_the_first_stay(store: ObjectStore) -> None:
    await store.put("a/b", b"first")
    with pytest.raises(ObjectExists):
        await store.put("a/b", b"other")
    assert await store.get("a/b") == b"first"


async def test_a_missing_object_is_named_as_missing(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissing):
        await store.get("a/none")


async def test_the_size_of_an_object_is_known_without_reading_it(store: ObjectStore) -> None:
    await store.put("a/b", b"x" * 1_000_000)
    assert await store.size("a/b") == 1_000_000
    assert await store.size("a/c") is None
    assert await store.size("a") is None


async def test_a_larger_object_than_asked_for_is_not_read(store: ObjectStore) -> None:
    await store.put("a/b", b"x" * 1000)
    assert await store.get("a/b", 1000) == b"x" * 1000
    with pytest.raises(ObjectTooLarge):
        await store.get("a/b", 999)


async def test_a_listing_is_a_folder_and_not_a_beginning_of_text(store: ObjectStore) -> None:
    for key in ("f/10/x", "f/1/y", "f/1/z/w", "g"):
        await store.put(key, key.encode())
    assert await store.list("f/1") == [ObjectInfo("f/1/y", 5), ObjectInfo("f/1/z/w", 7)]
    assert [item.key for item in await store.list("")] == ["f/1/y", "f/1/z/w", "f/10/x", "g"]
    assert await store.list("none/here") == []


async def test_deleting_a_folder_deletes_exactly_its_objects(store: ObjectStore) -> None:
    for key in ("f/10/x", "f/1/y", "f/1/z/w"):
        await store.put(key, b"x")
    assert await store.delete_prefix("f/1/") == 2
    assert [item.key for item in await store.list("")] == ["f/10/x"]
    assert await store.delete_prefix("f/1/") == 0


async def test_a_deleted_key_can_be_created_again(store: ObjectStore) -> None:
    await store.put("f/1/y", b"old")
    await store.delete_prefix("f")
    await store.put("f/1/y", b"new")
    assert await store.get("f/1/y") == b"new"


async def test_the_whole_store_cannot_be_deleted(store: ObjectStore) -> None:
    with pytest.raises(ValueError, match="whole store"):
        await store.delete_prefix("")


@pytest.mark.parametrize(
    "key", ["", "/a", "a//b", "a/", "../a", "a/../b", "a/./b", ".iota-store/lock", "a b", "é"]
)
async def test_a_bad_key_is_refused_before_anything_is_sent(store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError, match="no object key"):
        store.presign_put(key, 1, 60)
    with pytest.raises(ValueError, match="no object key"):
        await store.put(key, b"x")


async def test_a_presigned_put_creates_the_object(store: ObjectStore, client: ObjectClient) -> None:
    data = bytes(range(256)) * 5_000
    await client.put(store.presign_put("f/1", len(data), 60), memoryview(data), 20)
    assert await store.size("f/1") == len(data)
    assert await store.get("f/1") == data


async def test_a_second_presigned_put_says_that_it_stored_nothing_and_the_first_bytes_stay(
    conditional: ObjectStore, client: ObjectClient
) -> None:
    assert await client.put(conditional.presign_put("f/1", 5, 60), b"first", 20)
    assert not await client.put(conditional.presign_put("f/1", 5, 60), b"other", 20)
    assert await conditional.get("f/1") == b"first"


async def test_what_was_looked_at_is_never_changed_by_another_upload(
    store: ObjectStore, client: ObjectClient
) -> None:
    """Not by the same URL, nor by one that was given later."""
    url = store.presign_put("f/1", 5, 60)
    await client.put(url, b"first", 20)
    assert await store.size("f/1") == 5
    for again in (url, store.presign_put("f/1", 5, 60)):
        await client.put(again, b"other", 20)
        assert await store.size("f/1") == 5
        assert await store.get("f/1") == b"first"


async def test_a_key_that_holds_our_bytes_counts_as_stored(store: ObjectStore, client: ObjectClient) -> None:
    await store.put("f/1", b"frame")
    stored = await RunObjects(StoreUrls(store), client).put("f/1", b"frame")
    assert (stored.size, stored.digest) == (5, blake3(b"frame").hexdigest())


@pytest.mark.parametrize("theirs", [b"FRAME", b"fr", b"frames", b"f" * 1_000_000])
async def test_a_key_that_holds_other_bytes_does_not_count_as_stored(
    conditional: ObjectStore, client: ObjectClient, theirs: bytes
) -> None:
    """A presigned URL that somebody else used first, for instance."""
    await conditional.put("f/1", theirs)
    with pytest.raises(ObjectExists, match="f/1 exists"):
        await RunObjects(StoreUrls(conditional), client).put("f/1", b"frame")
    assert await conditional.get("f/1") == theirs


async def test_a_presigned_get_reads_whole_objects_and_ranges(
    store: ObjectStore, client: ObjectClient
) -> None:
    data = bytes(range(256)) * 10_000
    await store.put("f/1", data)
    url = store.presign_get("f/1", 60)
    assert await client.get(url, len(data), 20) == data
    assert await client.get(url, 1000, 20, (100, 300)) == data[100:300]
    assert await client.get(url, len(data), 20, (len(data) - 5, len(data) + 5)) == data[-5:]


async def test_a_large_object_is_read_in_ranges(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("iota.store.ranges.RANGE", 1000)
    monkeypatch.setattr("iota.store.transfer.LARGE", 1000)
    data = bytes(range(256)) * 40
    for key, size in (("f/0", 0), ("f/1", 1000), ("f/2", len(data))):
        await store.put(key, data[:size])
        assert await store.get(key) == data[:size]
    with pytest.raises(ObjectTooLarge):
        await store.get("f/2", len(data) - 1)
    with pytest.raises(ObjectMissing):
        await store.get("f/3", len(data))


async def test_a_presigned_get_of_nothing_is_missing(store: ObjectStore, client: ObjectClient) -> None:
    with pytest.raises((ObjectMissing, UrlRefused)):
        await client.get(store.presign_get("f/none", 60), 10, 20)


async def test_more_than_the_caller_allows_is_refused(store: ObjectStore, client: ObjectClient) -> None:
    await store.put("f/1", b"x" * 1000)
    with pytest.raises(ObjectTooLarge):
        await client.get(store.presign_get("f/1", 60), 999, 20)
