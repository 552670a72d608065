"""The embedded store's server, spoken to as a stranger would: over raw HTTP and raw sockets."""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from yarl import URL

from iota.store import EmbeddedStore, ObjectClient, StoreError, StoreFull
from iota.store.embedded_server import make_app, running
from iota.store.files import PRIVATE, ObjectFiles, RootInUse
from tests.support.store_servers import SECRET, Clock, embedded, serving


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path, clock: Clock) -> AsyncIterator[EmbeddedStore]:
    async with embedded(tmp_path, clock) as opened:
        yield opened


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def left_over(root: Path) -> list[str]:
    return sorted(p.name for p in root.rglob("*") if p.is_file() and p.name != "lock")


class RawUpload:
    """A PUT whose body the test sends piece by piece."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)

    async def open(self, length: int | None) -> None:
        assert self._url.hostname is not None
        self._reader, self.writer = await asyncio.open_connection(self._url.hostname, self._url.port)
        head = f"PUT {self._url.path}?{self._url.query} HTTP/1.1\r\nHost: x\r\n"
        head += "Transfer-Encoding: chunked\r\n" if length is None else f"Content-Length: {length}\r\n"
        self.writer.write(head.encode() + b"\r\n")
        await self.writer.drain()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def status(self) -> int:
        line = await asyncio.wait_for(self._reader.readline(), 20)
        return int(line.split()[1])

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


async def until(condition: Callable[[], object]) -> None:
    """Wait, at most 10 s, until `condition` holds of the disk, which has no event to wait for."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_of_two_uploads_at_once_the_one_that_ends_first_wins(
    store: EmbeddedStore, tmp_path: Path
) -> None:
    url = store.presign_put("a/b", 4, 60)
    slow, fast = RawUpload(url), RawUpload(url)
    await slow.open(4)
    await slow.send(b"sl")
    await until(lambda: any(p.stat().st_size == 2 for p in (tmp_path / PRIVATE).glob("upload-*")))
    await fast.open(4)
    await fast.send(b"fast")
    assert await fast.status() == 201
    await slow.send(b"ow")
    assert await slow.status() == 412
    assert await store.get("a/b") == b"fast"
    assert left_over(tmp_path) == ["b"]
    await slow.close()
    await fast.close()


async def test_many_concurrent_creations_of_one_key_create_it_once(store: EmbeddedStore) -> None:
    bodies = [bytes([i]) * 50_000 for i in range(16)]
    url = store.presign_put("a/b", 50_000, 60)
    async with ObjectClient() as client:
        created = await asyncio.gather(*(client.put(url, body, 30) for body in bodies))
    assert created.count(True) == 1
    assert await store.get("a/b") == bodies[created.index(True)]


async def test_an_aborted_upload_leaves_nothing(store: EmbeddedStore, tmp_path: Path) -> None:
    upload = RawUpload(store.presign_put("a/b", 100_000, 60))
    await upload.open(100_000)
    await upload.send(b"x" * 50_000)
    await until(lambda: left_over(tmp_path))
    await upload.close()
    await until(lambda: not left_over(tmp_path))
    assert await store.size("a/b") is None


async def test_another_size_is_refused_before_the_body_is_read(store: EmbeddedStore, tmp_path: Path) -> None:
    upload = RawUpload(store.presign_put("a/b", 10, 60))
    await upload.open(1 << 40)
    assert await upload.status() == 400
    assert left_over(tmp_path) == []
    await upload.close()


async def test_a_body_of_unknown_length_is_refused(store: EmbeddedStore) -> None:
    upload = RawUpload(store.presign_put("a/b", 10, 60))
    await upload.open(None)
    assert await upload.status() == 411
    await upload.close()


async def test_a_refusal_is_a_problem_document(store: EmbeddedStore, http: aiohttp.ClientSession) -> None:
    async with http.put(store.presign_put("a/b", 10, 60), data=b"four") as response:
        assert response.status == 400
        assert response.content_type == "application/problem+json"
        problem = json.loads(await response.read())
    assert problem["type"] == "urn:iota:store:wrong-size"
    assert "10 bytes, 4" in problem["detail"]


async def test_an_expired_url_is_refused(
    store: EmbeddedStore, clock: Clock, http: aiohttp.ClientSession
) -> None:
    await store.put("a/b", b"x")
    url = store.presign_get("a/b", 60)
    clock.time += 59.9
    async with http.get(url) as response:
        assert response.status == 200
    clock.time += 0.2
    async with http.get(url) as response:
        assert response.status == 403
        assert "expired" in await response.text()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/o/a/b", "/o/a/c"),
        ("size=4", "size=5"),
        ("op=put&size=4&expires=", "op=put&size=4&expires=9"),
        ("sig=", "sig=0"),
        ("sig=", "sig=\u00e9"),
        ("sig=", "gis="),
        ("size=4", "size=four"),
    ],
)
async def test_a_url_with_any_part_changed_is_refused(
    store: EmbeddedStore, http: aiohttp.ClientSession, tmp_path: Path, old: str, new: str
) -> None:
    url = store.presign_put("a/b", 4, 60)
    assert old in url
    data = b"fives" if new == "size=5" else b"four"
    async with http.put(url.replace(old, new), data=data) as response:
        assert response.status == 403
    assert left_over(tmp_path) == []


async def test_a_url_serves_one_method(store: EmbeddedStore, http: aiohttp.ClientSession) -> None:
    await store.put("a/b", b"four")
    put, get = store.presign_put("a/b", 4, 60), store.presign_get("a/b", 60)
    async with http.get(put) as response:
        assert response.status == 403
    async with http.put(get, data=b"") as response:
        assert response.status == 403
    async with http.get(get.replace("/o/a/b", "/folder/a/b")) as response:
        assert response.status == 403
    async with http.delete(get.replace("/o/a/b", "/folder/a/b/").replace("op=get", "op=delete")) as response:
        assert response.status == 403
    async with http.post(put, data=b"four") as response:
        assert response.status == 405


async def test_another_secret_signs_nothing_here(store: EmbeddedStore, http: aiohttp.ClientSession) -> None:
    base = store.presign_get("a", 1).partition("/o/")[0]
    stranger = EmbeddedStore(base, b"another secret of full length", now=Clock())
    async with http.get(stranger.presign_get("a/b", 60)) as response:
        assert response.status == 403


@pytest.mark.parametrize(
    "path", ["/o/../secret", "/o/%2e%2e/secret", "/o/a%2f..%2f..%2fsecret", "/o/%2fetc/passwd"]
)
async def test_no_path_leads_out_of_the_root(
    tmp_path: Path, clock: Clock, http: aiohttp.ClientSession, path: str
) -> None:
    (tmp_path / "secret").write_text("outside")
    async with embedded(tmp_path / "root", clock) as store:
        base, _, query = store.presign_get("a", 60).partition("/o/a")
        async with http.get(URL(base + path + query, encoded=True)) as response:
            assert response.status in (400, 403, 404)
            assert b"outside" not in await response.read()


@pytest.mark.parametrize(
    ("header", "start", "stop"),
    [("bytes=2-4", 2, 5), ("bytes=7-", 7, 10), ("bytes=-3", 7, 10), ("bytes=0-99", 0, 10)],
)
async def test_a_range_is_answered_with_its_part(
    store: EmbeddedStore, http: aiohttp.ClientSession, header: str, start: int, stop: int
) -> None:
    await store.put("a/b", b"0123456789")
    async with http.get(store.presign_get("a/b", 60), headers={"Range": header}) as response:
        assert response.status == 206
        assert response.headers["Content-Range"] == f"bytes {start}-{stop - 1}/10"
        assert await response.read() == b"0123456789"[start:stop]


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=5-2", "lines=1-2", "bytes=0-1,3-4"])
async def test_a_range_outside_the_object_is_refused(
    store: EmbeddedStore, http: aiohttp.ClientSession, header: str
) -> None:
    await store.put("a/b", b"0123456789")
    async with http.get(store.presign_get("a/b", 60), headers={"Range": header}) as response:
        assert response.status == 416
        assert response.headers["Content-Range"] == "bytes */10"


async def test_head_tells_the_size_and_sends_no_body(
    store: EmbeddedStore, http: aiohttp.ClientSession
) -> None:
    await store.put("a/b", b"0123456789")
    url = store.presign_get("a/b", 60)
    async with http.head(url) as response:
        assert (response.status, response.content_length) == (200, 10)
    async with http.get(url) as response:
        assert await response.read() == b"0123456789"


async def test_a_key_cannot_be_a_folder_of_another(store: EmbeddedStore, http: aiohttp.ClientSession) -> None:
    await store.put("a/b", b"x")
    for key in ("a", "a/b/c"):
        async with http.put(store.presign_put(key, 1, 60), data=b"x") as response:
            assert response.status == 400


async def test_a_disk_without_room_refuses_before_the_body_is_read(tmp_path: Path) -> None:
    async with embedded(tmp_path, reserve_bytes=1 << 62) as store:
        upload = RawUpload(store.presign_put("a/b", 1000, 60))
        await upload.open(1000)
        assert await upload.status() == 507
        await upload.close()
        with pytest.raises(StoreFull, match="free some disk space"):
            await store.put("a/b", b"x")


async def test_uploads_at_once_never_touch_the_reserve(tmp_path: Path) -> None:
    """A disk of 5 MB with 1 MB in reserve has room for four objects of 1 MB, however many begin together."""
    size, disk, reserve, least = 1_000_000, 5_000_000, 1_000_000, [5_000_000]

    def free(folder: Path) -> int:
        least.append(disk - sum(p.stat().st_size for p in tmp_path.rglob("*") if p.is_file()))
        return least[-1]

    async with embedded(tmp_path, reserve_bytes=reserve, free=free) as store:
        uploads = [RawUpload(store.presign_put(f"a/{n}", size, 60)) for n in range(8)]
        for upload in uploads:  # all begin before any has sent more than half
            await upload.open(size)
            await upload.send(b"x" * (size // 2))

        async def end(upload: RawUpload) -> int:
            with suppress(ConnectionError):
                await upload.send(b"x" * (size // 2))
            status = await upload.status()
            await upload.close()
            return status

        codes = await asyncio.gather(*map(end, uploads))
        assert sorted(codes) == [201] * 4 + [507] * 4
        free(tmp_path)
        assert min(least) >= reserve
        await store.delete_prefix("a")
        await store.put("a/9", b"x" * size)  # a promise ends with its upload


def test_an_upload_of_another_length_than_promised_gets_no_name(tmp_path: Path) -> None:
    files = ObjectFiles(tmp_path)
    with files.upload("a/b", 10) as upload:
        upload.write(b"123456789")
        with pytest.raises(StoreError, match="missing"):
            upload.finish()
    with pytest.raises(StoreError, match="more than"), files.upload("a/b", 10) as upload:
        upload.write(b"12345678901")
    assert files.size("a/b") is None
    files.close()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Make the kernel refuse to grow any file of this process past `size`, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_disk_that_fills_up_during_an_upload_leaves_nothing(
    store: EmbeddedStore, tmp_path: Path
) -> None:
    async with ObjectClient() as client:
        with largest_file(300_000), pytest.raises(StoreFull):
            await client.put(store.presign_put("a/b", 3_000_000, 60), b"x" * 3_000_000, 20)
        assert left_over(tmp_path) == []
        await client.put(store.presign_put("a/b", 3_000_000, 60), b"x" * 3_000_000, 20)


async def test_an_upload_that_dribbles_is_cut_off(tmp_path: Path) -> None:
    async with embedded(tmp_path, stall_s=0.2) as store:
        upload = RawUpload(store.presign_put("a/b", 1000, 60))
        await upload.open(1000)
        await upload.send(b"x")
        assert await upload.status() == 408
        assert left_over(tmp_path) == []
        await upload.close()


async def test_a_connection_that_never_ends_its_headers_is_closed(tmp_path: Path) -> None:
    async with serving(make_app(tmp_path, SECRET), keepalive_timeout=0.2) as url:
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


async def test_a_root_in_use_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, SECRET, "127.0.0.1", 0):
        with pytest.raises(RootInUse, match="in use"):
            async with running(tmp_path, SECRET, "127.0.0.1", 0):
                pass
    async with running(tmp_path, SECRET, "127.0.0.1", 0):
        pass


async def test_objects_outlive_the_server_and_leftovers_of_a_killed_one_do_not(tmp_path: Path) -> None:
    async with embedded(tmp_path) as store:
        await store.put("a/b", b"kept")
    (tmp_path / PRIVATE / "upload-dead").write_bytes(b"half")
    async with embedded(tmp_path) as store:
        assert await store.get("a/b") == b"kept"
        assert left_over(tmp_path) == ["b"]


async def test_files_laid_into_the_root_are_objects(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "m"
    folder.mkdir(parents=True)
    (folder / "shard-00000.bin").write_bytes(b"tokens")
    (folder / "not a key.txt").write_bytes(b"x")
    async with embedded(tmp_path) as store:
        assert await store.get("data/m/shard-00000.bin") == b"tokens"
        assert [item.key for item in await store.list("")] == ["data/m/shard-00000.bin"]


async def test_healthz_needs_no_signature(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with running(tmp_path, SECRET, "127.0.0.1", 0) as url, http.get(f"{url}/healthz") as response:
        assert response.status == 200


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="random"):
        make_app(tmp_path, b"short")
