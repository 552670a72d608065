"""`iota store check`, and how an S3 is used after it: what each service lacks, and what follows."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from iota.cli.main import main
from iota.store import EmbeddedStore, ObjectClient, UrlRefused, open_store
from iota.store.checks import State, usable
from iota.store.s3 import S3Store
from iota.store.s3_modes import AWS, CreateOnce, Deletes, Parts, S3Modes
from orchestrator.store_check import check_store
from tests.support.odd_s3 import BUCKET, ODD_MODES, Oddities, OddS3, credentials, odd_s3
from tests.support.store_servers import embedded, moto_s3

PLAIN = Oddities(conditions=True, needs_md5=False)
"""A service that lacks nothing."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL of one second is not waited for, except where a test is about it."""
    monkeypatch.setattr("iota.store.s3_probe._EXPIRED_S", 0.0)


async def modes_of(oddities: Oddities) -> tuple[S3Modes, set[str]]:
    """The modes that are chosen for a service, and the names of what it lacks."""
    with credentials():
        async with odd_s3(oddities) as (service, url):
            store = open_store(url)
            assert isinstance(store, S3Store)
            try:
                checks = await store.check()
            finally:
                await store.close()
            assert (service.objects, service.uploads) == ({}, {}), "it cleans up after itself"
            assert usable(checks)
            return store.modes, {c.name for c in checks if c.state is not State.WORKS} - {"expired URL"}


async def test_a_service_that_lacks_nothing_is_used_as_aws_is() -> None:
    assert await modes_of(PLAIN) == (AWS, set())


async def test_without_conditions_and_without_plain_deletions_there_are_other_ways() -> None:
    modes, lacking = await modes_of(Oddities())
    assert modes == ODD_MODES
    assert lacking == {"create once", "create once, URL", "create once, parts", "batch delete"}


async def test_a_service_that_ignores_a_condition_is_used_without_it() -> None:
    modes, lacking = await modes_of(Oddities(conditions=None, needs_md5=False))
    assert modes.create_once is CreateOnce.COPY
    assert modes.parts is Parts.LOOK
    assert lacking == {"create once", "create once, URL", "create once, parts"}


async def test_without_parts_an_object_has_at_most_5_gib() -> None:
    modes, lacking = await modes_of(Oddities(conditions=True, needs_md5=False, multipart=False))
    assert (modes.parts, lacking) == (Parts.NONE, {"parts"})
    with credentials():
        store = S3Store(BUCKET, "http://127.0.0.1:1", "r", modes=modes)
    assert (store.max_object, store.in_parts(1 << 32)) == (5 << 30, False)


async def test_without_batches_objects_are_deleted_one_by_one() -> None:
    modes, lacking = await modes_of(Oddities(conditions=True, batches=False))
    assert modes.deletes is Deletes.ONE_BY_ONE
    assert lacking == {"batch delete", "batch delete with MD5"}


@pytest.mark.parametrize(("cap_s", "life_s"), [(86_400, 86_400), (1000, 900), (60, 60)])
async def test_the_longest_life_of_a_url_is_found(cap_s: int, life_s: int) -> None:
    modes, lacking = await modes_of(Oddities(conditions=True, needs_md5=False, max_expiry_s=cap_s))
    assert modes.max_expiry_s == life_s
    assert lacking == ({"expiry"} if life_s < 3600 else set())


def test_a_url_for_longer_lives_as_long_as_the_service_allows() -> None:
    with credentials():
        store = S3Store(BUCKET, "http://127.0.0.1:1", "r", modes=S3Modes(max_expiry_s=900))
    assert parse_qs(urlsplit(store.presign_get("a/b", 3600)).query)["X-Amz-Expires"] == ["900"]
    assert parse_qs(urlsplit(store.presign_get("a/b", 30)).query)["X-Amz-Expires"] == ["30"]


@pytest.mark.parametrize(
    ("oddities", "name"),
    [
        (Oddities(copies=False), "copy"),
        (Oddities(max_expiry_s=30), "presigned PUT"),
        (Oddities(writes=False), "put"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_no_run_can_do_without_is_fatal(oddities: Oddities, name: str) -> None:
    with credentials():
        async with odd_s3(oddities) as (_, url):
            store = open_store(url)
            checks = await store.check()
            await store.close()
    assert not usable(checks)
    assert name in {found.name for found in checks if found.state is State.FATAL}


@pytest.mark.parametrize(
    ("oddities", "secret", "bucket", "remedy"),
    [
        (PLAIN, "wrong", BUCKET, "check both keys"),
        (PLAIN, None, "none-here", "create the bucket"),
        (Oddities(skew_s=2000), None, BUCKET, "set this machine's clock"),
        (Oddities(lists=False), None, BUCKET, "s3:ListBucket"),
    ],
    ids=["credentials", "bucket", "clock", "permission"],
)
async def test_a_mistake_is_named_with_its_remedy(
    oddities: Oddities,
    secret: str | None,
    bucket: str,
    remedy: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with credentials(*([secret] if secret else [])):
        async with odd_s3(oddities) as (_, url):
            code = await run("store", "check", url.replace(f"s3://{BUCKET}", f"s3://{bucket}"))
    said = capsys.readouterr().out
    assert code == 1
    assert remedy in said
    assert said.endswith("a run cannot work with this store\n")


async def test_an_expired_url_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with credentials():
        async with odd_s3(PLAIN) as (_, url):
            store = open_store(url)
            checks = await store.check()
            await store.close()
    assert [str(found) for found in checks if found.name == "expired URL"] == [
        "works    expired URL            gives 403"
    ]


async def test_moto_works_and_its_missing_signatures_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    with moto_s3("bucket") as url:
        code = await run("store", "check", f"s3://bucket?endpoint={url}&region=us-east-1", "--json")
    said = json.loads(capsys.readouterr().out.partition("\n")[2])  # moto's first line is its own
    lacking = {found["name"] for found in said["checks"] if found["state"] != "works"}
    assert (code, said["ok"], lacking) == (0, True, {"exact size", "signature", "expired URL"})


async def test_the_embedded_store_does_all(tmp_path: Path) -> None:
    async with embedded(tmp_path) as store:
        checks = await store.check()
        assert len(checks) == 11
        assert {found.state for found in checks} == {State.WORKS}
        assert await store.list("") == []


async def test_a_wrong_secret_is_no_store(tmp_path: Path) -> None:
    async with embedded(tmp_path) as right:
        store = EmbeddedStore(right.presign_get("a", 1).partition("/o/")[0], b"x" * 32)
        with pytest.raises(UrlRefused):
            await store.check()
        await store.close()


async def test_an_orchestrator_says_at_its_start_what_its_store_lacks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    with credentials():
        async with odd_s3() as (_, url):
            store = open_store(url)
            await check_store(store)
            await store.close()
    assert "lacks create once, URL: signed If-None-Match: * gives 501" in caplog.text
    assert "uploads go to keys of their own, and are copied from there" in caplog.text


async def test_an_orchestrator_refuses_a_store_that_no_run_can_use() -> None:
    with credentials():
        async with odd_s3(Oddities(copies=False)) as (_, url):
            store = open_store(url)
            with pytest.raises(ValueError, match="copy: gives 501 NotImplemented: nothing keeps"):
                await check_store(store)
            await store.close()


@pytest.fixture
async def odd() -> AsyncIterator[tuple[OddS3, S3Store, ObjectClient]]:
    """A service without conditions, a store in its modes, and who has URLs."""
    with credentials():
        async with odd_s3() as (service, _), ObjectClient() as client:
            store = service.store(ODD_MODES)
            yield service, store, client
            await store.close()


async def test_looks_at_once_copy_an_upload_once(odd: tuple[OddS3, S3Store, ObjectClient]) -> None:
    """A second copy could carry other bytes, which the uploader stored between the two."""
    service, store, client = odd
    await client.put(store.presign_put("f/1", 5, 60), b"first", 20)
    assert await asyncio.gather(*(store.size("f/1") for _ in range(8))) == [5] * 8
    assert len([request for request in service.seen if request == "PUT /bucket/runs/one/f/1"]) == 1


async def test_a_copy_that_takes_long_is_not_there_yet_and_goes_on(
    odd: tuple[OddS3, S3Store, ObjectClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store whose answer takes longer would count as away, which holds up the run."""
    service, store, client = odd
    await client.put(store.presign_put("f/1", 5, 60), b"first", 20)
    monkeypatch.setattr("iota.store.s3._TAKE_S", 0.0)
    assert await store.size("f/1") is None
    monkeypatch.undo()
    assert await store.size("f/1") == 5
    assert service.seen.count("PUT /bucket/runs/one/f/1") == 1


async def test_uploads_that_wait_are_no_objects_and_go_with_their_folder(
    odd: tuple[OddS3, S3Store, ObjectClient],
) -> None:
    service, store, client = odd
    await store.put("f/2", b"object")
    await client.put(store.presign_put("f/1", 5, 60), b"first", 20)
    assert [item.key for item in await store.list("")] == ["f/2"]
    assert await store.delete_prefix("f") == 1
    assert service.objects == {}


async def test_an_upload_is_where_nobody_reads(odd: tuple[OddS3, S3Store, ObjectClient]) -> None:
    """A URL for reading leads to what was copied: what its uploader stores later is never read."""
    service, store, client = odd
    await client.put(store.presign_put("f/1", 5, 60), b"first", 20)
    assert set(service.objects) == {"runs/one/.incoming/f/1"}
    assert await store.size("f/1") == 5
    assert set(service.objects) == {"runs/one/f/1"}


async def test_who_has_credentials_overwrites_nothing_either(
    odd: tuple[OddS3, S3Store, ObjectClient],
) -> None:
    service, store, client = odd
    await client.put(store.presign_put("f/1", 5, 60), b"first", 20)
    await store.put("f/1", b"first")
    assert service.objects == {"runs/one/f/1": b"first"}


async def run(*arguments: str) -> int:
    """The exit code of a command line, run beside this loop's servers."""
    try:
        await asyncio.to_thread(main, list(arguments))
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0
