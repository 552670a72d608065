"""What is particular to S3: what is signed, and how its errors and settings read."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from iota.store import BucketMissing, EmbeddedStore, StoreUnavailable, open_store
from iota.store.s3 import S3Store
from iota.store.s3_modes import MAX_EXPIRY_S, Parts, S3Modes
from orchestrator.run import refuse_large_objects
from tests.support.small_spec import small_spec
from tests.support.store_servers import moto_s3


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with moto_s3("bucket") as url:
        yield url


def test_size_and_create_once_are_part_of_a_puts_signature(s3_url: str) -> None:
    url = S3Store("bucket", s3_url, "us-east-1").presign_put("a/b", 7, 60)
    query = parse_qs(urlsplit(url).query)
    assert query["X-Amz-SignedHeaders"] == ["content-length;host;if-none-match"]
    assert query["X-Amz-Expires"] == ["60"]
    other = S3Store("bucket", s3_url, "us-east-1").presign_put("a/b", 8, 60)
    assert query["X-Amz-Signature"] != parse_qs(urlsplit(other).query)["X-Amz-Signature"]


def test_keys_lie_below_the_stores_prefix(s3_url: str) -> None:
    url = S3Store("bucket", s3_url, "us-east-1", "runs/one").presign_get("a/b", 60)
    assert urlsplit(url).path == "/bucket/runs/one/a/b"


def test_an_expiry_that_s3_does_not_take_is_refused(s3_url: str) -> None:
    with pytest.raises(ValueError, match="7 days"):
        S3Store("bucket", s3_url, "us-east-1").presign_get("a/b", MAX_EXPIRY_S + 1)


async def test_a_missing_bucket_is_no_missing_object(s3_url: str) -> None:
    with pytest.raises(BucketMissing, match="create the bucket"):
        await S3Store("none-here", s3_url, "us-east-1").put("a/b", b"x")


async def test_a_server_that_is_not_there_is_unavailable(s3_url: str, unused_tcp_port: int) -> None:
    store = S3Store("bucket", f"http://127.0.0.1:{unused_tcp_port}", "us-east-1")
    with pytest.raises(StoreUnavailable):
        await store.get("a/b")


def test_missing_credentials_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(ValueError, match="no S3 credentials"):
        S3Store("bucket", region="us-east-1")


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        ("ftp://x/y", "http://HOST:PORT or s3://BUCKET"),
        ("bucket/prefix", "http://HOST:PORT or s3://BUCKET"),
        ("http://localhost:9000", "secret"),
        ("s3://bucket/p?zone=x", "endpoint= and region="),
    ],
)
def test_a_store_url_that_cannot_work_says_what_to_write(url: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        open_store(url)


def test_a_run_whose_snapshots_the_store_cannot_hold_is_refused_at_the_start(s3_url: str) -> None:
    """In one request an S3 takes 5 GiB; AdamW's state of a stage of 1e9 parameters has 11 GiB."""
    model = {
        "hidden_size": 4096,
        "layers": 2,
        "ffn_size": 16384,
        "vocab_size": 128_000,
        "heads": 32,
        "kv_heads": 8,
    }
    large = small_spec(model=model, layout={"cuts": [1, 1]})
    store = S3Store("bucket", s3_url, "us-east-1", modes=S3Modes(parts=Parts.NONE))
    with pytest.raises(ValueError, match="at most 5 GiB: cut the model into more stages"):
        refuse_large_objects(large, store)
    refuse_large_objects(small_spec(), store)
    refuse_large_objects(large, S3Store("bucket", s3_url, "us-east-1"))
    refuse_large_objects(large, EmbeddedStore("http://127.0.0.1:1", b"s" * 32))
